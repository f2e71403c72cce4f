"""Several benchmarks as one: heterogeneous tasks."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Count, Natural
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datamodules.images import ImageBatches
from fewshot.datamodules.sources import SourcesDataModule
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import Examples, MetaBatch
from fewshot.errors import FewshotError

FACTS = ("in_channels", "image_size", "in_features", "vocab_size", "tokenizer")


class MultiSourceDataModule(SourcesDataModule):
    """MultiSource: any set of benchmarks in one run, each episode of one; results source by source.

    Paper: none.

    Each benchmark keeps its own way, shot, queries and splits; its own numbers of episodes, batch
    sizes, workers and seed are not used. They must be of one kind of task and, where they are not
    images, have the same facts for the backbone. The results of a source do not depend on what
    other sources there are. For task heterogeneity as in arXiv:1810.03642 and arXiv:1903.03096.

    Args:
        benchmarks: the benchmarks by their name in results, each a class with its arguments.
        weights: how likely each is in training, in the order of `benchmarks`; 0 leaves it to
            validation and test. None means alike.
        image_size: H = W that images are resized to; None means what all sources have.
        in_channels: 3 repeats grey images, 1 makes colour grey; None means what all sources have.
        meta_batch_size: training episodes a step, over all ranks.
        eval_batch_size: episodes that each rank is handed at once.
        train_episodes: training episodes an epoch, over all ranks and sources.
        val_episodes: validation episodes of each source.
        test_episodes: test episodes of each source.
        num_workers: processes that draw episodes ahead; 0 draws them in the training process.
        seed: of the episodes.
    """

    benchmark: ClassVar[str] = "MultiSource"
    facts: ClassVar[tuple[str, ...]] = FACTS

    def __init__(
        self,
        benchmarks: dict[str, EpisodicDataModule],
        weights: list[float] | None = None,
        image_size: Count | None = None,
        in_channels: Count | None = None,
        meta_batch_size: Count = 4,
        eval_batch_size: Count = 8,
        train_episodes: Count = 1000,
        val_episodes: Count = 100,
        test_episodes: Count = 600,
        num_workers: Natural = 0,
        seed: Natural = 0,
    ) -> None:
        super().__init__(
            meta_batch_size=meta_batch_size,
            eval_batch_size=eval_batch_size,
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            num_workers=num_workers,
            seed=seed,
        )
        if not benchmarks or any(
            isinstance(benchmark, SourcesDataModule) for benchmark in benchmarks.values()
        ):
            raise FewshotError(
                "benchmarks must name one benchmark or more, none of which has several sources"
                " itself"
            )
        if weights is not None and (
            len(weights) != len(benchmarks) or min(weights) < 0 or not sum(weights) > 0
        ):
            raise FewshotError(
                f"weights are {weights} for {len(benchmarks)} benchmarks; give each one, none"
                " negative, some above 0"
            )
        for name, benchmark in benchmarks.items():
            if getattr(benchmark, "listed", None):
                raise FewshotError(
                    f"{name} takes its test episodes from a file, which MultiSource does not; give"
                    " MultiSource their number, or test on the benchmark alone"
                )
            if getattr(benchmark, "augment", None) or getattr(benchmark, "augment_query", None):
                raise FewshotError(
                    f"{name} augments its images, which MultiSource does not; leave augment out"
                    " of it"
                )
        self.benchmarks, self.given = dict(benchmarks), weights
        kinds = {name: benchmark.task["kind"] for name, benchmark in self.benchmarks.items()}
        if len(set(kinds.values())) > 1:
            listing = ", ".join(f"{name} is {kind}" for name, kind in kinds.items())
            raise FewshotError(
                f"the benchmarks must be of one kind of task, but {listing}; leave some out"
            )
        self.images = all(
            isinstance(benchmark, ImageBatches) for benchmark in self.benchmarks.values()
        )
        image_facts = {"image_size": image_size, "in_channels": in_channels} if self.images else {}
        for fact in FACTS:
            if self.images and fact == "in_features":
                self.in_features = self.in_channels * self.image_size**2
            elif (value := self._common(fact, image_facts.get(fact))) is not None:
                setattr(self, fact, value)

    in_channels: int
    image_size: int
    in_features: int
    vocab_size: int
    tokenizer: str | None

    def _common(self, fact: str, override: Any) -> Any:
        """What all benchmarks have, or what is given in its place."""
        values = {
            name: getattr(benchmark, fact, None) for name, benchmark in self.benchmarks.items()
        }
        if override is not None:
            return override
        if len(set(values.values())) > 1:
            listing = ", ".join(f"{name} has {value}" for name, value in values.items())
            remedy = f"set data.{fact}" if self.images else "leave some out"
            raise FewshotError(f"the benchmarks must have the same {fact}, but {listing}; {remedy}")
        return next(iter(values.values()))

    @property
    def task(self) -> dict[str, Any]:
        """The benchmarks' kind of task; of classification any way, where theirs differ."""
        tasks = [benchmark.task for benchmark in self.benchmarks.values()]
        if all(task == tasks[0] for task in tasks):
            return tasks[0]
        if tasks[0]["kind"] == "classification":
            return {"kind": "classification", "way": None}
        raise FewshotError(
            f"the benchmarks' tasks differ: {', '.join(map(str, tasks))}; leave some out"
        )

    def sources(self, stage: Stage) -> Mapping[str, TaskDistribution]:
        """The tasks of each benchmark; in training of those with a weight."""
        chosen = {
            name: benchmark
            for (name, benchmark), weight in zip(
                self.benchmarks.items(), self._all_weights(), strict=True
            )
            if weight or stage != "train"
        }
        return {name: benchmark.tasks(stage) for name, benchmark in chosen.items()}

    def weights(self) -> Sequence[float]:
        """How likely each source of training is."""
        return [weight for weight in self._all_weights() if weight]

    def _all_weights(self) -> Sequence[float]:
        return self.given or [1.0] * len(self.benchmarks)

    def on_before_batch_transfer(self, batch: MetaBatch, dataloader_idx: int) -> MetaBatch:
        """What each benchmark does before its episodes go to the device."""

        def prepared(source: str, part: MetaBatch) -> MetaBatch:
            ready: MetaBatch = self.benchmarks[source].on_before_batch_transfer(
                part, dataloader_idx
            )
            return ready

        return batch.map_by_source(prepared)

    def converted(self, source: str, batch: MetaBatch) -> MetaBatch:
        """An episode as its benchmark converts it; images of one size and number of channels."""
        converted: MetaBatch = self.benchmarks[source].on_after_batch_transfer(batch, 0)
        return converted.map(self._of_one_size) if self.images else converted

    def _of_one_size(self, part: Examples) -> Examples:
        assert isinstance(part.inputs, Tensor)
        return part._replace(inputs=resized(part.inputs, self.image_size, self.in_channels))

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, those of each benchmark among them."""
        facts = {name: benchmark.protocol() for name, benchmark in self.benchmarks.items()}
        weights = dict(zip(self.benchmarks, self._all_weights(), strict=True))
        sizes = {}
        for key in ("way", "shot", "queries"):
            values = [of.get(key) for of in facts.values()]
            sizes[key] = values[0] if values.count(values[0]) == len(values) else None
        return {**super().protocol(), **sizes, "weights": weights, "benchmarks": facts}

    def __str__(self) -> str:
        parts = (f"{name}={benchmark}" for name, benchmark in self.benchmarks.items())
        return f"{type(self).__name__}({', '.join(parts)})"

    def prepare_data(self) -> None:
        """Prepare every benchmark, once a machine."""
        for benchmark in self.benchmarks.values():
            benchmark.prepare_data()

    def setup(self, stage: str) -> None:
        """Set every benchmark up on every rank."""
        for benchmark in self.benchmarks.values():
            benchmark.trainer = self.trainer
            benchmark.setup(stage)


def resized(images: Tensor, size: int, channels: int) -> Tensor:
    """Images (B, n, C, H, W) of another size and channels: grey repeated, colour averaged."""
    if images.shape[-1] != size or images.shape[-2] != size:
        flat = F.interpolate(images.flatten(0, 1), (size, size), mode="bilinear", antialias=True)
        images = flat.view(*images.shape[:2], *flat.shape[1:])
    if images.shape[2] == channels:
        return images
    return (
        images.mean(2, keepdim=True) if channels == 1 else images.expand(-1, -1, channels, -1, -1)
    )
