"""Acting in the optimization-based family: what was played is held, and outer steps are on it."""

from abc import abstractmethod
from typing import Any

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from fewshot.engine.inner_loop import Weights
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.runner import Runner
from fewshot.episodes.types import Episode, Examples, MetaBatch
from fewshot.errors import FewshotError
from fewshot.learners.optimization.evaluation import InnerLoopEvaluation
from fewshot.tasks.control import Control


class ActsByGradients(InnerLoopEvaluation):
    """Mix-in: an episode of a task to act in, held fixed, is a function of the initialisation."""

    runner: Runner
    inner_steps: int
    _held: list[Episode]

    @abstractmethod
    def initial_weights(self) -> Weights:
        """The learned initialisation of the parameters that adapt, by name."""

    def passes(self, batch: Any) -> list[Any]:
        """The batch; with an outer step of its own what was played, as often as that wants it."""
        if self.outer is None:
            return super().passes(batch)
        self._held = [self.held(part) for part in MetaBatch.of(batch).parts]
        return [MetaBatch(self._held)] * self.outer.epochs

    @torch.no_grad()
    def held(self, episodes: Episode) -> Episode:
        """B stacked episodes of tasks to act in, played by the policies as they are now.

        The support (B, K, M, ...) has what was played before each of the K inner steps, the query
        what the adapted policies played. `run` takes them in the place of `episodes`.
        """

        def played(episode: Episode, norm: EpisodeNorm) -> tuple[Tensor, ...]:
            support: list[Examples] = []
            for step in range(max(1, self.inner_steps)):  # one that nobody reads, rather than none
                weights = self._after(support)
                support.append(self.examples_for(weights, episode.support, step))
            adapted = self._after(support[: self.inner_steps])
            query = self.examples_for(adapted, episode.query)
            return *_tensors(_stacked(support)), *_tensors(query)

        chunks = zip(*self.runner.run(played, episodes), strict=True)
        tensors = [torch.cat(parts) for parts in chunks]
        return Episode(Examples(*tensors[:2]), Examples(*tensors[2:]))

    def _after(self, support: list[Examples]) -> Weights:
        """The weights after the inner steps on what was played before each."""
        if not support:
            return self.initial_weights()
        *_, weights = self.inner_loop(_stacked(support), len(support))
        return weights

    def surrogate(self, episodes: list[Episode]) -> tuple[Tensor, Tensor]:
        """The mean loss and KL of the adapted policies on held episodes, against what acted."""
        task = self.task

        def judged(episode: Episode, norm: EpisodeNorm) -> tuple[Tensor, Tensor]:
            *_, weights = self.inner_loop(episode.support, self.inner_steps)
            outputs = self.forward_with(weights, episode.query.inputs)
            targets = episode.query.targets
            assert isinstance(task, Control)  # `check_task` has seen to it
            return task.loss(outputs, targets), task.kl(outputs, targets)

        found = [pair for part in episodes for pair in self.runner.run(judged, part)]
        losses, divergences = (torch.cat(column) for column in zip(*found, strict=True))
        return losses.mean(), divergences.mean()

    def on_fit_start(self) -> None:
        """Refuse an optimizer that does not go with the outer step."""
        super().on_fit_start()
        if self.outer is not None:
            for optimizer in self.trainer.optimizers:
                self.outer.check(optimizer)

    def _clip_and_step(
        self, optimizer: LightningOptimizer, scale: float, counted: bool = True
    ) -> None:
        if self.outer is not None:
            if scale > 1:
                raise FewshotError(
                    f"{type(self.outer).__name__} does not scale its loss; set precision: 32-true"
                )
            self.outer.prepare(self, self._held)
        super()._clip_and_step(optimizer, scale, counted)


def _stacked(support: list[Examples]) -> Examples:
    inputs, targets = zip(*(_tensors(one) for one in support), strict=True)
    return Examples(torch.stack(inputs), torch.stack(targets))


def _tensors(examples: Examples) -> tuple[Tensor, Tensor]:
    assert isinstance(examples.inputs, Tensor)  # observations
    return examples.inputs, examples.targets
