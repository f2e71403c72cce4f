"""Tasks to act in: an episode is the facts of a task and the seeds of the trials to be played."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from fewshot.environments.base import Environment
from fewshot.episodes.types import Episode, Examples, episode


@dataclass(frozen=True)
class ControlTasks:
    """A distribution over an environment's tasks.

    Args:
        environment: what is acted in.
        shot: trials of the support.
        queries: trials of the query.
    """

    environment: Environment
    shot: int
    queries: int

    def draw(self, rng: np.random.Generator) -> Episode:
        """One task: inputs are its facts for each trial, (shot, F), targets seeds (shot,) int64."""
        return episode(self._drawn([rng]), 0)

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """One part of a task a generator."""
        return [self._drawn(rngs)]

    def _drawn(self, rngs: Sequence[np.random.Generator]) -> Episode:
        facts = np.stack([self.environment.draw(rng) for rng in rngs]).astype(np.float32)
        seeds = np.stack([rng.integers(2**62, size=self.shot + self.queries) for rng in rngs])
        parts = np.split(seeds, [self.shot], axis=1)
        return Episode(*(self._examples(facts, part) for part in parts))

    def _examples(self, facts: np.ndarray, seeds: np.ndarray) -> Examples:
        rows = np.repeat(facts[:, None], seeds.shape[1], axis=1)
        return Examples(torch.from_numpy(rows), torch.from_numpy(np.ascontiguousarray(seeds)))
