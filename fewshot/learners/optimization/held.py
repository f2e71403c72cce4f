"""What was played, held fixed: an episode as a function of the initialisation alone."""

import torch
from torch import Tensor

from fewshot.engine.inner_loop import Weights
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples
from fewshot.learners.optimization.base import OptimizationLearner


@torch.no_grad()
def held(learner: OptimizationLearner, episodes: Episode) -> Episode:
    """B stacked episodes of tasks to act in, played by the learner as it is now.

    The support (B, K, M, ...) has what was played before each of the K inner steps, the query what
    the adapted policies played. `run` takes them in the place of `episodes`.
    """

    def played(episode: Episode, norm: EpisodeNorm) -> tuple[Tensor, ...]:
        support: list[Examples] = []
        for step in range(learner.inner_steps):
            weights = _after(learner, support)
            support.append(learner.examples_for(weights, episode.support, step))
        query = learner.examples_for(_after(learner, support), episode.query)
        return *_tensors(_stacked(support)), *_tensors(query)

    chunks = zip(*learner.runner.run(played, episodes), strict=True)
    tensors = [torch.cat(parts) for parts in chunks]
    return Episode(Examples(*tensors[:2]), Examples(*tensors[2:]))


def _after(learner: OptimizationLearner, support: list[Examples]) -> Weights:
    """The weights after the inner steps on what was played before each."""
    if not support:
        return learner.initial_weights()
    *_, weights = learner.inner_loop(_stacked(support), len(support))
    return weights


def _stacked(support: list[Examples]) -> Examples:
    inputs, targets = zip(*(_tensors(one) for one in support), strict=True)
    return Examples(torch.stack(inputs), torch.stack(targets))


def _tensors(examples: Examples) -> tuple[Tensor, Tensor]:
    assert isinstance(examples.inputs, Tensor)  # observations
    return examples.inputs, examples.targets
