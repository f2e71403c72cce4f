"""What multi-source benchmarks share: one source per episode, results for each source."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.source_stream import SourceStream
from fewshot.episodes.streams import EpisodeStream, Stage
from fewshot.episodes.types import Episode
from fewshot.errors import FewshotError


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
