"""Prediction and evaluation by fast weights: the adaptation curve, and queries under attack."""

from abc import abstractmethod
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from operator import itemgetter
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from fewshot.engine.inner_loop import Weights
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.normalization import EpisodeNorm, Statistics
from fewshot.engine.runner import Runner
from fewshot.episodes.types import Episode, Examples, Inputs, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners.embedding import joined
from fewshot.learners.optimization.attacks import Attack
from fewshot.learners.optimization.fast_weights import FEATURES, FastWeights
from fewshot.learners.optimization.network import give_shapes
from fewshot.learners.outcome import Outcome
from fewshot.tasks.masks import at_size

Curve: TypeAlias = Literal["none", "ends", "all"]

AT_ONCE = 512
"""Examples of a forward pass where each query has the support beside it."""


class Company(NamedTuple):
    """The support that each query is normalised together with."""

    inputs: Inputs


class Adapted(NamedTuple):
    """An adapted predictor: weights, and what queries are normalised with, if not one another.

    That is the support's batch statistics, or the support itself.
    """

    weights: Weights
    statistics: Statistics | Company | None


class InnerLoopEvaluation(FastWeights):
    """What is done at validation, test and use with an inner loop, whatever it is."""

    runner: Runner
    attack: Attack | None
    inner_steps: int
    eval_inner_steps: int
    eval_curve: Curve
    query_among_support = False
    """Whether inductive evaluation normalises a query by its own values and the support's."""
    embed_together = False
    """Whether a body that does not adapt reads an episode's support and query in one pass."""

    @abstractmethod
    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Yield the fast weights before and after each inner step on one (embedded) support set."""

    def embedded(self, inputs: Inputs) -> Inputs:
        """What the inner loop works on: features where only the head adapts, else the inputs."""
        if not self.head_only:
            return inputs
        if isinstance(inputs, dict) and FEATURES in inputs:
            return inputs[FEATURES]
        return self.network.features(inputs)

    def made_ready(self, episodes: Episode, training: bool) -> Episode:
        """B stacked episodes as they are to be run: with inputs, or with features made before."""
        return episodes

    def embedded_episode(self, episode: Episode) -> tuple[Inputs, Inputs]:
        """What the inner loop works on of an episode's support and of its query."""
        support, query = episode.support.inputs, episode.query.inputs
        if not self.embed_together:
            return self.embedded(support), self.embedded(query)
        features, size = self.embedded(joined(episode, 0)), len(episode.support.targets)
        assert isinstance(features, Tensor)
        return features[:size], features[size:]

    def facts(self) -> dict[str, Any]:
        """The attack that the queries of the evaluation are put under, with its arguments."""
        if self.attack is None:
            return super().facts()
        arguments = ", ".join(f"{name}={value}" for name, value in self.attack.init_args.items())
        return super().facts() | {"attack": f"{type(self.attack).__name__}({arguments})"}

    # ------------------------------------------------------------------ the two verbs

    def adapt(self, support: Examples) -> Adapted:
        """The network adapted to one support set."""
        return self.adapt_for(support, self.eval_inner_steps)

    def adapt_for(self, support: Examples, steps: int) -> Adapted:
        """The network after `steps` inner steps on one support set.

        0 gives it before adaptation.
        """
        with (
            torch.inference_mode(False),
            evaluation_mode(self.network),
            EpisodeNorm(exact_vmap=False) as norm,
        ):
            support = map_tensors(torch.clone, support)
            give_shapes(self.network, self.task.probe(support))
            inside = Examples(self.embedded(support.inputs), support.targets)
            *_, weights = self.inner_loop(inside, steps)
            return Adapted(weights, self._statistics(weights, support, norm))

    def outputs_by_step(self, episode: Episode, outputs: Tensor) -> dict[str, Tensor]:
        """Those before adaptation, after the first inner step and after the last."""
        last, found = self.eval_inner_steps, dict[str, Tensor]()
        with torch.no_grad():
            for step in range(min(last, 2)):
                adapted = self.adapt_for(episode.support, step)
                if self.task.acts:
                    shown = self.judged(adapted.weights, episode.query).outputs
                else:
                    shown = self.predict(adapted, episode.query.inputs)
                found[_after(step)] = shown.to(outputs)
        return found | {_after(last): outputs}

    def predict(self, adapted: Adapted, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of inputs (n, ...).

        In segmentation (n, N+1, H, W) of images (n, C, H, W).
        """
        with (
            evaluation_mode(self.network),
            EpisodeNorm(exact_vmap=False) as norm,
        ):
            outputs = self.query_outputs(adapted, inputs, norm)
        if self.network.dense and isinstance(inputs, Tensor):
            return at_size(outputs, inputs)
        return outputs

    def query_outputs(self, adapted: Adapted, inputs: Inputs, norm: EpisodeNorm) -> Tensor:
        """Outputs (n, output_size) of query inputs (n, ...), normalised as the policy says."""
        if isinstance(adapted.statistics, Company):
            return self._in_company(adapted.weights, adapted.statistics.inputs, inputs, norm)
        with _replayed(norm, adapted.statistics):
            return self.forward_with(adapted.weights, self.embedded(inputs))

    def _in_company(
        self, weights: Weights, support: Inputs, inputs: Inputs, norm: EpisodeNorm
    ) -> Tensor:
        """The same, each query in a batch of its own, behind the support (S, ...)."""
        size = len(next(iter(support.values())) if isinstance(support, dict) else support) + 1

        def behind(support: Tensor, some: Tensor) -> Tensor:
            if some.shape[1:] != support.shape[1:]:
                raise FewshotError(
                    f"a query of shape {tuple(some.shape[1:])} cannot be normalised among supports"
                    f" of shape {tuple(support.shape[1:])}; set query_among_support: false"
                )
            before = support.expand(len(some), *support.shape)
            return torch.cat([before, some[:, None]], 1).flatten(0, 1)

        def outputs(some: Inputs) -> Tensor:
            if isinstance(some, dict):
                assert isinstance(support, dict)
                batch: Inputs = {name: behind(support[name], some[name]) for name in some}
            else:
                assert isinstance(support, Tensor)
                batch = behind(support, some)
            with norm.grouped(size):
                found = self.forward_with(weights, self.embedded(batch))
            return found[size - 1 :: size]

        queries = len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)
        at_once = max(1, AT_ONCE // size)
        parts = [slice(i, i + at_once) for i in range(0, queries, at_once)]
        return torch.cat([outputs(map_tensors(itemgetter(part), inputs)) for part in parts])

    def evaluate_unadapted(self, episodes: Episode) -> Outcome:
        """What comes of stacked episodes before adaptation: queries answered without a support."""
        before = self.eval_inner_steps, self.eval_curve, self.attack
        self.eval_inner_steps, self.eval_curve, self.attack = 0, "none", None
        try:
            return self.evaluate(episodes)
        finally:
            self.eval_inner_steps, self.eval_curve, self.attack = before

    # ------------------------------------------------------------------ one episode

    def evaluation_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One evaluation episode: its outcome, with the figures by inner steps of `eval_curve`."""
        judged: dict[int, Outcome] = {}
        if self.embed_together:
            inside, query = self.embedded_episode(episode)
        else:
            inside = self.embedded(episode.support.inputs)
        support = Examples(inside, episode.support.targets)
        for step, weights in enumerate(self.inner_loop(support, self.eval_inner_steps)):
            if step not in self._judged_steps():
                continue
            # statistics and features of a body that does not adapt are the same after every step
            body_is_new = not judged or not self.head_only
            if body_is_new:
                statistics = self._statistics(weights, episode.support, norm)
            if isinstance(statistics, Company):
                adapted = Adapted(weights, statistics)
                outputs = self.query_outputs(adapted, episode.query.inputs, norm)
                judged[step] = self._outcome(outputs, episode.query)
            else:
                with _replayed(norm, statistics):
                    if body_is_new and not self.embed_together:
                        query = self.embedded(episode.query.inputs)
                    judged[step] = self.judged(weights, Examples(query, episode.query.targets))
        outcome = judged[self.eval_inner_steps]
        more = {} if self.eval_curve == "none" else _by_step(judged)
        if self.attack is not None:
            more |= self._attacked(self.attack, Adapted(weights, statistics), episode, norm)
        return outcome._replace(metrics=outcome.metrics | more)

    def _judged_steps(self) -> Collection[int]:
        """After how many inner steps evaluation gives the queries to the network."""
        last = self.eval_inner_steps
        return {"none": (last,), "ends": (0, last), "all": range(last + 1)}[self.eval_curve]

    def _diverged(self, step: int, batch: Any) -> str:
        asked, self.eval_curve = self.eval_curve, "all"  # which names the inner step
        try:
            return super()._diverged(step, batch)
        finally:
            self.eval_curve = asked

    def _attacked(
        self,
        attack: Attack,
        adapted: Adapted,
        episode: Episode,
        norm: EpisodeNorm,
    ) -> dict[str, Tensor]:
        """Loss and metrics on queries that are attacked through the adapted weights."""
        inputs, targets = episode.query.inputs, episode.query.targets
        assert isinstance(inputs, Tensor)  # `Attack.check` has seen to it

        def outputs(inputs: Tensor) -> Tensor:
            return self.query_outputs(adapted, inputs, norm)

        # The same random start always: results must not depend on what was evaluated before, or how
        # many at once.
        attacked = attack(lambda inputs: self.task.loss(outputs(inputs), targets), inputs, seed=0)
        outcome = self._outcome(outputs(attacked), episode.query)
        named = {"loss": outcome.loss, **outcome.metrics}
        return {f"{name}_adversarial": value for name, value in named.items()}

    def _statistics(
        self, weights: Weights, support: Examples, norm: EpisodeNorm
    ) -> Statistics | Company | None:
        """What queries are normalised with by the policy, if not with one another."""
        if self.batchnorm == "transductive" or self.task.acts:
            return None
        if self.query_among_support:
            return Company(support.inputs)
        with norm.record() as statistics:
            self.forward_with(weights, self.embedded(support.inputs))
        return statistics


def _by_step(judged: dict[int, Outcome]) -> dict[str, Tensor]:
    """Loss and metrics of each inner step, the step at the end of their names."""
    return {
        f"{name}_step{step}": value
        for step, outcome in judged.items()
        for name, value in {"loss": outcome.loss, **outcome.metrics}.items()
    }


def _after(steps: int) -> str:
    return f"after {steps} step{'s' if steps > 1 else ''}" if steps else "before adaptation"


def _replayed(norm: EpisodeNorm, statistics: Statistics | None) -> AbstractContextManager[None]:
    return nullcontext() if statistics is None else norm.replay(statistics)
