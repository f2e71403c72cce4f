"""What multi-source benchmarks share: one source per episode, results for each source."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

from torch import Tensor

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.loader import EpisodeLoader
from fewshot.episodes.source_stream import SourceStream
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import MetaBatch, TrainingBatch
from fewshot.errors import FewshotError


class SourcesDataModule(EpisodicDataModule):
    """A benchmark of several sources; `val_episodes` and `test_episodes` are those of each."""

    @abstractmethod
    def sources(self, stage: Stage) -> Mapping[str, TaskDistribution]:
        """What a stage's episodes are drawn from, by the sources' names."""

    def weights(self) -> Sequence[float]:
        """How likely each source of training is."""
        return [1.0] * len(self.sources("train"))

    def converted(self, source: str, batch: MetaBatch) -> MetaBatch:
        """An episode of a source as learners read it; on the device."""
        return batch

    def source_of(self, stage: Stage, numbers: Tensor) -> list[str]:
        """The sources of validation or test episodes with these numbers (n,)."""
        stream = self.stream(stage)
        return [stream.source_of(number) for number in numbers.tolist()]

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

    def stream(self, stage: Stage) -> SourceStream:
        """The endless list of a stage's episodes."""
        sources = self.sources(stage)
        return SourceStream(
            sources, self.seed, stage, self.weights() if stage == "train" else [1.0] * len(sources)
        )

    def on_after_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """Convert each episode as its source wants it."""
        return batch.map_by_source(self.converted)

    def _loader(self, stage: Stage, meta_batch_size: int, repeat: bool = False) -> EpisodeLoader:
        number = self.episodes[stage] * (1 if stage == "train" else len(self.sources(stage)))
        return self._numbered(self.stream(stage), number, meta_batch_size, repeat)
