"""Tasks over classes that several partitions of the same examples give.

Shapes: n examples, m of them in a partition, B episodes, N way, K shot, Q queries a class.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from fewshot.episodes.class_dataset import LazyInputs
from fewshot.episodes.distributions import gather
from fewshot.episodes.sampling import Index, draw_episode
from fewshot.episodes.types import Episode, Examples, Inputs, episode


class Partition(NamedTuple):
    """Disjoint groups of examples, which take the place of classes.

    Args:
        rows: of the examples, group by group, (m,).
        counts: examples of each group, (groups,).
    """

    rows: Index
    counts: Index

    @classmethod
    def of(cls, labels: np.ndarray, least: int) -> "Partition":
        """The groups of `labels` (n,) that have `least` examples or more.

        >>> Partition.of(np.array([2, 0, 2, 1, 0]), least=2)
        Partition(rows=array([1, 4, 0, 2]), counts=array([2, 2]))
        """
        sizes = np.bincount(labels)
        order = np.argsort(labels, kind="stable")
        kept = sizes[labels[order]] >= least
        return cls(order[kept], sizes[sizes >= least])

    @property
    def starts(self) -> Index:
        """The place in `rows` of each group's first example, (groups,)."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)


class PartitionTasks:
    """N-way K-shot tasks, each over the groups of one of several partitions, all equally likely.

    Args:
        inputs: the examples, (n, ...).
        partitions: each of N groups or more, which have K + Q examples or more.
        way: N. shot: K. queries: Q a class.
    """

    def __init__(
        self,
        inputs: Inputs | LazyInputs,
        partitions: Sequence[Partition],
        way: int,
        shot: int,
        queries: int,
    ) -> None:
        self.inputs, self.partitions = inputs, partitions
        self.way, self.shot, self.queries = way, shot, queries
        self.starts = [partition.starts for partition in partitions]

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode: support (N*K, ...), query (N*Q, ...), labels 0..N-1 in blocks."""
        return episode(self.draw_many([rng])[0], 0)

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """One part of one episode a generator."""
        drawn = [self._rows(rng) for rng in rngs]
        support, query = (
            np.stack(rows).reshape(len(rngs), -1) for rows in zip(*drawn, strict=True)
        )
        return [Episode(self._examples(support, self.shot), self._examples(query, self.queries))]

    def _rows(self, rng: np.random.Generator) -> tuple[Index, Index]:
        """The examples of one episode's support (N, K) and query (N, Q)."""
        number = int(rng.integers(len(self.partitions)))
        rows, counts = self.partitions[number]
        sizes = self.way, self.shot, self.queries
        support, query = draw_episode(rng, self.starts[number], counts, *sizes)
        return rows[support], rows[query]

    def _examples(self, rows: Index, repeats: int) -> Examples:
        labels = torch.arange(self.way).repeat_interleave(repeats).repeat(len(rows), 1)
        return Examples(gather(self.inputs, torch.from_numpy(rows)), labels)
