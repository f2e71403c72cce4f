"""Meta-Dataset: a benchmark of ten image sources, of any way and any shot."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from fewshot.arguments import Count, Natural
from fewshot.datamodules.images import ImageBatches
from fewshot.datamodules.sources import SourcesDataModule
from fewshot.datasets.meta_dataset import TRAINED, SourceSplit, found_sources, load_source
from fewshot.datasets.reading.downloads import data_root
from fewshot.engine.augmentation import Augmentation
from fewshot.episodes.broad_sampling import MAX_CONTRIBUTION, MAX_QUERIES, MAX_WAYS, MIN_WAYS
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import TrainingBatch
from fewshot.errors import FewshotError


class MetaDatasetDataModule(ImageBatches, SourcesDataModule):
    """MetaDataset: ten image sources, episodes of 5 to 50 classes and unequal shots.

    Paper: arXiv:1903.03096.

    An episode is of one source. Its classes are any of a flat source, of one alphabet of Omniglot,
    or those below a node of ImageNet's hierarchy; `fewshot.episodes.broad_sampling` draws its
    sizes. Training takes up to eight sources, each as often as the others, or ImageNet alone
    (``train_sources: [ilsvrc_2012]``); the test takes all, 600 episodes each, and gives the results
    of each. Works with those sources that are there. The results of a source do not depend on what
    others there are.

    The root holds a folder a source, as its archive unpacks or under its name in Meta-Dataset, and
    the published specifications in ``dataset_specs`` (Omniglot needs none). Images are squares in
    colour: the middle of each, or its box for aircraft and COCO.

    Args:
        root: folder with the sources; None means `$FEWSHOT_DATA`, or else the user's cache folder.
        sources: which sources are used; None means all that are there.
        train_sources: which of them train and validate; None means those with training classes.
        specs: folder of the published specifications; None means ``dataset_specs`` below the root.
        image_size: H = W in pixels: 84 in the paper, 126 in its best configurations.
        channels: 3 for RGB, 1 for grey, where all sources are drawings.
        packed: write the resized images of each source once into a packed store below
            ``$FEWSHOT_DATA`` or the user's cache folder; otherwise decode files episode by episode.
            QuickDraw's are arrays and never packed.
        verify: accept the published number of images of each class alone; without it, results say
            so.
        meta_batch_size: training episodes a step, over all ranks.
        eval_batch_size: episodes that each rank is handed at once.
        train_episodes: training episodes an epoch, over all ranks and sources.
        val_episodes: validation episodes of each source.
        test_episodes: test episodes of each source.
        num_workers: processes that draw episodes ahead; 0 draws them in the training process.
        seed: of the episodes.
        batch_size: training examples a step, over all ranks, for learners that train without
            episodes.
        augment: random changes of training images, such as ``{padding: 8, flip: true}``; None:
            none.
        augment_query: the same for the queries alone; None: as `augment`. ``{}`` leaves them as
            they are.
        normalize: scale images to [-1, 1], as the paper does; pre-trained networks of torchvision
            want [0, 1].
    """

    benchmark: ClassVar[str] = "Meta-Dataset"
    facts: ClassVar[tuple[str, ...]] = ("train_classes",)
    mean, std = (0.5,), (0.5,)

    def __init__(
        self,
        root: str | None = None,
        sources: list[str] | None = None,
        train_sources: list[str] | None = None,
        specs: str | None = None,
        image_size: Count = 84,
        channels: Literal[1, 3] = 3,
        packed: bool = True,
        verify: bool = True,
        meta_batch_size: Count = 1,
        eval_batch_size: Count = 8,
        train_episodes: Count = 1000,
        val_episodes: Count = 60,
        test_episodes: Count = 600,
        num_workers: Natural = 0,
        seed: Natural = 0,
        batch_size: Count = 64,
        augment: Augmentation | None = None,
        augment_query: Augmentation | None = None,
        normalize: bool = False,
    ) -> None:
        super().__init__(
            queries=MAX_QUERIES,
            meta_batch_size=meta_batch_size,
            eval_batch_size=eval_batch_size,
            train_episodes=train_episodes,
            val_episodes=val_episodes,
            test_episodes=test_episodes,
            num_workers=num_workers,
            seed=seed,
            batch_size=batch_size,
            augment=augment,
            augment_query=augment_query,
            normalize=normalize,
        )
        self.root, self.asked, self.train_asked = data_root(root), sources, train_sources
        self.specs = Path(specs).expanduser() if specs else self.root / "dataset_specs"
        self.image_size, self.in_channels, self.channels = image_size, channels, channels
        self.packed, self.verify = packed, verify
        self._splits: dict[str, dict[str, SourceSplit]] | None = None

    @property
    def task(self) -> dict[str, Any]:
        """Classification of any way."""
        return {"kind": "classification", "way": None}

    def prepare(self) -> None:
        """Pack the sources, or check every packed image and mend those that are corrupt."""
        self._splits = self._load(mend=True)

    def _load(self, mend: bool = False) -> dict[str, dict[str, SourceSplit]]:
        store = data_root(None) / "meta_dataset" if self.packed else None
        return {
            name: load_source(
                name, folder, self.specs, store, self.image_size, self.channels, self.verify, mend
            )
            for name, folder in found_sources(self.root, self.asked).items()
        }

    @property
    def splits(self) -> dict[str, dict[str, SourceSplit]]:
        """The splits of each source, read once."""
        if self._splits is None:
            self._splits = self._load()
        return self._splits

    @property
    def trained(self) -> list[str]:
        """The sources that train and validate.

        Raises:
            FewshotError: there is none, or one has no training classes or is not among the sources.
        """
        names = self.train_asked
        if names is None:
            names = [name for name in self.splits if name in TRAINED]
        for name in names:
            if name not in TRAINED or name not in self.splits:
                why = "is not among the sources" if name in TRAINED else "has no training classes"
                raise FewshotError(
                    f"train_sources names {name!r}, which {why}; name some of {', '.join(TRAINED)}"
                )
        if not names:
            raise FewshotError(
                f"none of {', '.join(self.splits)} has training classes; add one of"
                f" {', '.join(TRAINED)}, or use `fewshot test`"
            )
        return list(names)

    def sources(self, stage: Stage) -> Mapping[str, TaskDistribution]:
        """The episodes of each source of a stage: in train and val, the training sources."""
        names: Sequence[str] = list(self.splits) if stage == "test" else self.trained
        return {name: self.splits[name][stage].tasks() for name in names}

    def on_after_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """Images as float, augmented in training; of plain examples too."""
        return ImageBatches.on_after_batch_transfer(self, batch, dataloader_idx)

    def examples(self) -> ClassDataset:
        """The training classes, for learners that train without episodes.

        Raises:
            FewshotError: there are several sources.
        """
        names = self.trained
        if len(names) > 1:
            raise FewshotError(
                "learners that train on examples take one source of Meta-Dataset; set train_sources"
                " to one, such as [ilsvrc_2012] as in the paper"
            )
        return self.splits[names[0]]["train"].dataset

    @property
    def train_classes(self) -> int:
        """How many classes training has, for learners that learn to tell them all apart.

        Reads the data.
        """
        return len(self.examples().classes)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        return {
            **super().protocol(),
            "way": f"{MIN_WAYS} to {MAX_WAYS}",
            "shot": f"1 to {MAX_CONTRIBUTION * 5}",
            "queries": f"1 to {MAX_QUERIES}",
            "split": "published" if self.verify else "published, not verified",
            "train_sources": self.train_asked or [name for name in self.splits if name in TRAINED],
            "image_size": self.image_size,
        }

    def __str__(self) -> str:  # the base's would read the sources for the protocol
        return f"{type(self).__name__}(root={self.root}, sources={self.asked or 'all'})"

    def prepare_data(self) -> None:
        """Find and pack the sources, once a machine."""
        _ = self.splits

    def setup(self, stage: str) -> None:
        """Read the sources on every rank."""
        _ = self.splits
