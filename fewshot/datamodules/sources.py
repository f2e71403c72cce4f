"""What multi-source benchmarks share: one source per episode, results for each source."""

import zlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.distributions import TaskDistribution
from fewshot.episodes import Episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.loading import EpisodeLoader, EpisodeStream, Stage

Sourced: TypeAlias = list[tuple[str, Episode]]
"""A meta-batch before conversion: each episode's source name, and the episode with B = 1."""


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

    # the datamodule converts it
    def __getitems__(self, numbers: Sequence[int]) -> Sourced:  # type: ignore[override]
        """The meta-batch of these episodes; what a DataLoader calls."""
        drawn = (self.draw(number) for number in numbers)
        return [
            (source, map_tensors(lambda tensor: tensor[None], episode)) for source, episode in drawn
        ]

    def draw(self, number: int) -> tuple[str, Episode]:
        """The name of the source of episode `number`, and the episode, without the axis B."""
        if self.in_turn:
            place, source = divmod(number, len(self.names))
            name = self.names[source]
            rng = np.random.default_rng([self.seed, self.stage, place, zlib.crc32(name.encode())])
        else:
            rng = self._rng(number)
            name = self.names[int(rng.choice(len(self.names), p=self.weights))]
        return name, self.sources[name].draw(rng)


class SourcesDataModule(EpisodicDataModule):
    """A benchmark of several sources; `val_episodes` and `test_episodes` are those of each."""

    @abstractmethod
    def sources(self, stage: Stage) -> Mapping[str, TaskDistribution]:
        """What a stage's episodes are drawn from, by the sources' names."""

    def weights(self) -> Sequence[float]:
        """How likely each source of training is."""
        return [1.0] * len(self.sources("train"))

    def converted(self, source: str, episode: Episode) -> Episode:
        """An episode of a source, with B = 1, as learners read it; on the device."""
        return episode

    def source_of(self, stage: Stage, numbers: Tensor) -> list[str]:
        """The sources of validation or test episodes with these numbers (n,)."""
        names = list(self.sources(stage))
        return [names[number % len(names)] for number in numbers.tolist()]

    def tasks(self, stage: Stage) -> TaskDistribution:
        """The distribution of the only source.

        Raises:
            FewshotError: there are several.
        """
        sources = self.sources(stage)
        if len(sources) != 1:
            raise FewshotError(
                f"{type(self).__name__} has {len(sources)} sources; take `sources(stage)[name]`"
            )
        return next(iter(sources.values()))

    def stream(self, stage: Stage) -> EpisodeStream:
        """The endless list of a stage's episodes."""
        sources = self.sources(stage)
        return SourceStream(
            sources, self.seed, stage, self.weights() if stage == "train" else [1.0] * len(sources)
        )

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Convert each episode as its source wants it."""
        return [self.converted(source, episode) for source, episode in batch]

    def _loader(
        self, stage: Stage, meta_batch_size: int, repeat: bool = False
    ) -> EpisodeLoader[Any]:
        number = self.episodes[stage] * (1 if stage == "train" else len(self.sources(stage)))
        return self._numbered(self.stream(stage), number, meta_batch_size, repeat)
