"""What benchmarks without training labels share: where the examples come from, what judges them."""

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch.utilities import rank_zero_info

from fewshot.arguments import Count, Natural, Way
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datamodules.classification import ClassificationDataModule
from fewshot.datamodules.images import FloatImages
from fewshot.datamodules.plain_examples import UnlabelledImages, UnlabelledTexts
from fewshot.datamodules.text import TextDataModule
from fewshot.datasets.reading.texts import TermSplitter, encode_texts
from fewshot.datasets.unlabelled import is_text, read_images, read_texts
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import Inputs, TrainingBatch
from fewshot.episodes.unlabelled import as_classes, size_of
from fewshot.errors import FewshotError

NO_LABELS = (
    "%s: no labels, so that accuracy on classes cannot be measured; validation and test tell held"
    " out examples apart by views of them. Every learner trains, and `fewshot predict` takes a few"
    " labelled examples; give `benchmark` (your labelled classes) to validate and test on classes"
)


class UnlabelledDataModule(EpisodicDataModule):
    """A benchmark whose training examples have no labels; validation and test are as usual.

    The examples are those of `benchmark` in training, its labels ignored; or those of `unlabelled`.
    Validation and test are the benchmark's, with its way, shot and queries; its other numbers and
    its seed are not used. Without a benchmark they are tasks made of held out examples.

    Args:
        benchmark: a benchmark of images or texts by class.
        unlabelled: a folder of images, whatever lies below it; or of texts, or a file of them.
        image_size: H = W in pixels of unlabelled images; the benchmark's where there is one.
        channels: 3 for RGB, 1 for grey; the benchmark's where there is one.
        skip_broken: leave out images that cannot be decoded; otherwise they are told and refused.
        train_way: classes of a training episode, N.
        train_shot: support examples of each in training.
        train_queries: queries of each in training.
        meta_batch_size: training episodes a step, over all ranks.
        eval_batch_size: episodes evaluated at once by each rank; changes the speed alone.
        train_episodes: training episodes an epoch, over all ranks.
        val_episodes: validation episodes, the same list every time.
        test_episodes: test episodes, the same list every time.
        num_workers: processes that draw episodes ahead; 0 draws them in the training process.
        seed: of the episodes.
        batch_size: training examples a step, for learners that train without episodes.
    """

    facts: ClassVar[tuple[str, ...]] = (
        *("in_channels", "image_size", "in_features", "train_classes"),
        *("vocab_size", "document_frequencies", "documents", "tokenizer", "vectors", "vocabulary"),
    )
    augments = True
    reads_pieces: ClassVar[bool] = False
    """Whether texts may be the pieces of a tokenizer."""

    @classmethod
    def network_for(cls, arguments: Mapping[str, str | type]) -> Mapping[str, Any] | None:
        """The usual network of its labelled benchmark, or of the kind of its files."""
        benchmark, folder = arguments.get("benchmark"), arguments.get("unlabelled")
        if isinstance(benchmark, type) and issubclass(benchmark, EpisodicDataModule):
            return benchmark.usual_backbone
        if not isinstance(folder, str):  # refused in a moment
            return None
        text = is_text(Path(folder).expanduser())
        return TextDataModule.usual_backbone if text else FloatImages.usual_backbone

    def __init__(
        self,
        benchmark: ClassificationDataModule | None = None,
        unlabelled: str | None = None,
        image_size: Count = 84,
        channels: Literal[1, 3] = 3,
        skip_broken: bool = False,
        train_way: Way = 5,
        train_shot: Count = 1,
        train_queries: Count = 1,
        meta_batch_size: Count = 4,
        eval_batch_size: Count = 8,
        train_episodes: Count = 1000,
        val_episodes: Count = 200,
        test_episodes: Count = 600,
        num_workers: Natural = 0,
        seed: Natural = 0,
        batch_size: Count = 64,
    ) -> None:
        if benchmark is None and unlabelled is None:
            raise FewshotError(
                f"{type(self).__name__} has nothing to learn from; set unlabelled to your folder,"
                " or benchmark to one whose training labels are ignored"
            )
        self.labelled, self.pool_root = benchmark is not None, unlabelled
        if benchmark is None:
            root = str(Path(str(unlabelled)).expanduser())
            benchmark = (
                UnlabelledTexts(root, train_way)
                if is_text(Path(root))
                else UnlabelledImages(root, image_size, channels, train_way, skip_broken)
            )
        _check_source(benchmark, unlabelled if self.labelled else None, self.reads_pieces)
        super().__init__(
            shot=benchmark.shot if self.labelled else train_shot,
            queries=benchmark.queries if self.labelled else train_queries,
            train_shot=train_shot,
            train_queries=train_queries,
            meta_batch_size=meta_batch_size,
            eval_batch_size=eval_batch_size,
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            num_workers=num_workers,
            seed=seed,
            batch_size=batch_size,
        )
        # its training labels are ignored, and with them how many examples its classes have
        self.source = copy.copy(benchmark)
        self.source.train_way, self.source.train_shot, self.source.train_queries = 2, 1, 1
        self.train_way, self.skip_broken = train_way, skip_broken
        self.way = benchmark.way
        if not self.labelled:
            rank_zero_info(NO_LABELS % unlabelled)

    def __getattr__(self, name: str) -> Any:
        """The facts of the inputs are the benchmark's."""
        if name in UnlabelledDataModule.facts and "source" in vars(self):
            return getattr(self.source, name)
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    # ------------------------------------------------------------------ the examples

    @cached_property
    def pool(self) -> ClassDataset:
        """The training examples, each a class of its own; read once.

        Raises:
            FewshotError: there are fewer than a task needs.
        """
        inputs = self.source.datasets["train"].inputs if not self.apart else self._own()
        if (number := size_of(inputs)) < self.train_way:
            raise FewshotError(
                f"there are {number} examples without labels, too few for train_way"
                f" {self.train_way}; set train_way <= {number} or add examples"
            )
        return as_classes(inputs)

    @property
    def apart(self) -> bool:
        """Whether the training examples are none of the benchmark's."""
        return self.labelled and self.pool_root is not None

    def _own(self) -> Inputs | LazyInputs:
        root = Path(str(self.pool_root)).expanduser()
        if isinstance(self.source, TextDataModule):
            splitter = TermSplitter(self.source.options)
            parts = {"train": {"": [splitter.split(text) for text in read_texts(root)]}}
            known = self.source.texts.vocabulary
            return encode_texts(parts, splitter, known, counted=()).datasets["train"].inputs
        channels: Literal[1, 3] = 1 if self.in_channels == 1 else 3
        return read_images(root, self.image_size, channels, self.skip_broken)

    def examples(self) -> ClassDataset:
        """The training examples by what takes the place of classes: each its own."""
        return self.pool

    @property
    def train_classes(self) -> int:
        """How many classes training has."""
        return len(self.examples().classes)

    def parts(self, stage: Stage) -> Sequence[ClassDataset]:
        """The stage's examples."""
        return (self.pool,) if stage == "train" else self.source.parts(stage)

    def examples_a_batch(self, stage: Stage, plain: bool = False) -> int:
        """Those of its episodes."""
        if plain:
            return self.batch_size
        if stage != "train":
            way, shot, queries = self.source.sizes(stage)
            return self.eval_batch_size * self._ranks()[1] * way * (shot + queries)
        return self.meta_batch_size * self.train_way * (self.train_shot + self.train_queries)

    # ------------------------------------------------------------------ tasks

    @property
    def task(self) -> dict[str, Any]:
        """The benchmark's, with another way in training."""
        facts = self.source.task
        return facts if facts["way"] is None else {**facts, "train_way": self.train_way}

    @abstractmethod
    def training_tasks(self) -> TaskDistribution:
        """The tasks that the training examples give."""

    @abstractmethod
    def held_out_tasks(self, examples: ClassDataset) -> TaskDistribution:
        """Tasks of held out examples, where there are no labels."""

    def tasks(self, stage: Stage) -> TaskDistribution:
        """Tasks of unlabelled examples in training, of the benchmark's classes otherwise."""
        if stage == "train":
            return self.training_tasks()
        if self.labelled:
            return self.source.tasks(stage)
        return self.held_out_tasks(self.source.datasets[stage])

    @property
    def balanced_queries(self) -> bool | None:
        """Whether test episodes have as many queries of each class."""
        return self.source.balanced_queries

    # ------------------------------------------------------------------ what is said and kept

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """The benchmark's."""
        return self.source.preprocessing

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result: the benchmark's, and what labels training."""
        judged = "classes" if self.labelled else "views of held out examples"
        told = {"training_labels": self.benchmark, "judged_on": judged, "seed": self.seed}
        return {**self.source.protocol(), **told}

    def settings(self) -> dict[str, Any]:
        """The arguments, and once they are read how many examples there are."""
        read = {"unlabelled_examples": len(self.pool.counts)} if "pool" in vars(self) else {}
        return {**super().settings(), **read}

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.source})"

    # ------------------------------------------------------------------ a run

    def prepare_data(self) -> None:
        """Read and cache, once a machine."""
        self.source.prepare_data()
        _ = self.pool

    def setup(self, stage: str) -> None:
        """Read on every rank."""
        self.source.trainer = self.trainer
        self.source.setup(stage)
        _ = self.pool

    def on_before_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """As the benchmark does."""
        ready: TrainingBatch = self.source.on_before_batch_transfer(batch, dataloader_idx)
        return ready

    def on_after_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """As the benchmark does."""
        ready: TrainingBatch = self.source.on_after_batch_transfer(batch, dataloader_idx)
        return ready


def _check_source(benchmark: ClassificationDataModule, folder: str | None, pieces: bool) -> None:
    """Check that a benchmark's inputs can be trained on without labels.

    Raises:
        FewshotError: they cannot, or its arguments say what nobody would do.
    """
    name = benchmark.benchmark
    if not isinstance(benchmark, FloatImages | TextDataModule):
        raise FewshotError(f"{name} has neither images nor texts; choose a benchmark of either")
    if benchmark.listed:
        raise FewshotError(
            f"{name} takes its test episodes from a file, which is not done without labels; give"
            " their number, or test on the benchmark alone"
        )
    given = {
        "class_mixing": getattr(benchmark, "class_mixing", 0),
        "augment": getattr(benchmark, "augments", False),
        "label_assignment": benchmark.label_assignment == "fixed",
        "nota_rate": getattr(benchmark, "train_nota_rate", 0),
        "tokenizer": getattr(benchmark, "tokenizer", None) and not pieces,
    }
    for argument, value in given.items():
        if value:
            raise FewshotError(
                f"{argument} of {name} does not go with training without labels; leave it out of"
                " the benchmark"
            )
    if folder is not None and getattr(benchmark, "bright_ink", False):
        raise FewshotError(
            f"{name} is of bright ink on dark, which files of {folder} are not; leave"
            " unlabelled out, or judge on an ImageFolderDataModule"
        )
