"""Episodes of several sources: which source an episode is of, and the same list for any others."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.streams import EpisodeStream, Stage, names_of
from fewshot.episodes.types import Episode, MetaBatch, as_numbers, map_tensors


class SourceStream(EpisodeStream):
    """The endless list of a stage's episodes, each of one of several sources.

    In training, the source is drawn at random. In validation and test they take turns, and the n-th
    episode of a source is a function of the seed, the stage, n and the source alone: results do not
    depend on what other sources there are.

    Args:
        sources: what the episodes are drawn from, by the sources' names.
        seed: the benchmark's seed.
        stage: train, val or test.
        weights: how likely each source is in training.
    """

    def __init__(
        self,
        sources: Mapping[str, TaskDistribution],
        seed: int,
        stage: Stage,
        weights: Sequence[float],
    ) -> None:
        super().__init__(next(iter(sources.values())), seed, stage)
        self.names, self.sources, self.in_turn = list(sources), sources, stage != "train"
        self.weights = np.array(weights, float) / sum(weights)

    def __getitem__(self, number: int) -> Episode:
        """Episode `number`, without the axis B."""
        _, episode = self.draw(number)
        return episode

    def __getitems__(self, numbers: Sequence[int]) -> MetaBatch:
        """The meta-batch of these episodes, a part each; what a DataLoader calls."""
        sources, episodes = zip(*(self.draw(number) for number in numbers), strict=True)
        parts = [map_tensors(lambda tensor: tensor[None], episode) for episode in episodes]
        return MetaBatch(parts, as_numbers(numbers), sources)

    def draw(self, number: int) -> tuple[str, Episode]:
        """The name of the source of episode `number`, and the episode, without the axis B."""
        name, rng = self._source(number)
        return name, self.sources[name].draw(rng)

    def class_names(self, number: int) -> tuple[str, ...] | None:
        """The names of the classes of episode `number`, ``source/class``, where they have any."""
        source, rng = self._source(number)
        names = names_of(self.sources[source], rng)
        return None if names is None else tuple(f"{source}/{name}" for name in names)

    def _source(self, number: int) -> tuple[str, np.random.Generator]:
        """The source of episode `number`, and the generator that draws it."""
        if self.in_turn:
            place, name = number // len(self.names), self.source_of(number)
            seeds = [self.seed, self.stage, place, zlib.crc32(name.encode())]
            return name, np.random.default_rng(seeds)
        rng = self._rng(number)
        return self.names[int(rng.choice(len(self.names), p=self.weights))], rng

    def source_of(self, number: int) -> str:
        """The name of the source of episode `number` where they take turns."""
        return self.names[number % len(self.names)]
