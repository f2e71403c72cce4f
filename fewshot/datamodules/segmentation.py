"""What benchmarks of segmentation share, and your own images with masks as one."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fewshot.arguments import Count
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datamodules.images import FloatImages
from fewshot.datasets.reading.downloads import data_root
from fewshot.datasets.segmentation import (
    SegmentationDataset,
    SegmentationTasks,
    check_classes,
    counted_pixels,
    find_pairs,
    members_by_pixels,
)
from fewshot.episodes.streams import STAGES, Stage
from fewshot.errors import FewshotError
from fewshot.tasks.masks import Iou


class SegmentationDataModule(FloatImages, EpisodicDataModule):
    """A benchmark of N-way K-shot segmentation: some of a split's classes against the background.

    Args:
        root: folder with the data; None means `$FEWSHOT_DATA`, or else the user's cache folder.
        image_size: side in pixels that images and masks are resized to, whatever their shape.
        way: classes of an episode besides the background, N.
        min_pixels: pixels of a class, before resizing, from which on an image is one of the class:
            smaller objects are left out, as since arXiv:1709.03410, which asks for 2 cells of
            32x32.
        queries: query images a class.
        flip: mirror half of the training images with their masks, left to right.
        iou: where false positives count: `everywhere`, in every query image, or as in PANet's code
            (`panet`), in images that have the class; for N > 1 that gives higher figures.
        **kwargs: arguments of `EpisodicDataModule`.
    """

    in_channels = 3
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {
        "class_path": "fewshot.Conv4",
        "init_args": {"pooled_blocks": 2},
    }
    classes: tuple[str, ...]
    """All classes of the benchmark by name."""

    def __init__(
        self,
        root: str | None = None,
        image_size: Count = 128,
        way: Count = 1,
        min_pixels: Count = 2048,
        queries: Count = 1,
        flip: bool = True,
        iou: Iou = "everywhere",
        **kwargs: Any,
    ) -> None:
        super().__init__(queries=queries, **kwargs)
        self.root, self.image_size, self.way, self.min_pixels = (
            data_root(root),
            image_size,
            way,
            min_pixels,
        )
        self.flip, self.iou = flip, iou
        self._datasets: dict[str, SegmentationDataset] | None = None

    @abstractmethod
    def load(self) -> dict[str, SegmentationDataset]:
        """Find the images and the classes of train, val and test."""

    @property
    @abstractmethod
    def split_name(self) -> str:
        """Which of the benchmark's splits is in use."""

    @property
    def datasets(self) -> dict[str, SegmentationDataset]:
        """The splits, found once and checked against the episodes asked for."""
        if self._datasets is None:
            datasets = self.load()
            for stage in STAGES:
                check_classes(
                    stage,
                    datasets[stage],
                    *self.sizes(stage),
                    of=f" of {self.min_pixels} pixels or more",
                )
            self._datasets = datasets
        return self._datasets

    def sizes(self, stage: Stage) -> tuple[int, int, int]:
        """The way, shot and queries of a stage's episodes."""
        train = self.way, self.train_shot, self.train_queries
        return train if stage == "train" else (self.way, self.shot, self.queries)

    @property
    def task(self) -> dict[str, Any]:
        """Segmentation with this benchmark's way and classes."""
        facts = {"kind": "segmentation", "way": self.way, "classes": list(self.classes)}
        return facts | self._counting()

    def _counting(self) -> dict[str, Any]:
        """Where false positives count, if not everywhere, of which results have always been."""
        return {} if self.iou == "everywhere" else {"iou": self.iou}

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        facts = {
            "split": self.split_name,
            "way": self.way,
            "image_size": self.image_size,
            "min_pixels": self.min_pixels,
        }
        return {**super().protocol(), **facts, **self._counting()}

    def prepare_data(self) -> None:
        """Read the masks, once a machine."""
        _ = self.datasets

    def setup(self, stage: str) -> None:
        """Find the data on every rank."""
        _ = self.datasets

    def tasks(self, stage: Stage) -> SegmentationTasks:
        """N-way K-shot tasks over the stage's classes."""
        flip = self.flip and stage == "train"
        return SegmentationTasks(self.datasets[stage], self.classes, *self.sizes(stage), flip)


class SegmentationFolderDataModule(SegmentationDataModule):
    """SegmentationFolder: your own images with masks, whose classes are episodes.

    A mask is an image of one channel, whose values are classes, under the name of its image.
    Classes that a split does not name are background in its episodes. Paper: none, the images are
    yours.

    Args:
        root: the folder.
        classes: the value in the masks of each class, by name, for train, val and test; no class
            may stand in two.
        images: the folder of images in `root`; ``{split}`` stands for train, val and test.
        masks: the same for the masks.
        ignored: values of pixels that neither train nor count, besides 255.
        unseen: what pixels of the classes of val and test are in training: `background`, as in
            PASCAL-5i, or `ignored`, for scenes where they are in every image, so that training
            would teach to tell none of them apart.
        **kwargs: arguments of `SegmentationDataModule`.
    """

    benchmark: ClassVar[str] = "SegmentationFolder"

    def __init__(
        self,
        root: str,
        classes: Mapping[str, Mapping[str, int]],
        images: str = "images/{split}",
        masks: str = "masks/{split}",
        ignored: list[int] | None = None,
        unseen: Literal["background", "ignored"] = "background",
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.table = check_table(classes)
        self.classes = tuple(name for stage in STAGES for name in self.table[stage])
        self.images, self.masks, self.ignored = images, masks, tuple(ignored or ())
        self.unseen = unseen

    @property
    def split_name(self) -> str:
        """Where the classes come from."""
        return "given classes"

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the classes of each split among them."""
        classes = {stage: list(self.table[stage]) for stage in STAGES}
        return {**super().protocol(), "unseen": self.unseen, "classes": classes}

    def load(self) -> dict[str, SegmentationDataset]:
        """The pairs of the folders, and the classes of each."""
        found: dict[str, SegmentationDataset] = {}
        for stage in STAGES:
            images, masks = (
                self.root / folder.replace("{split}", stage) for folder in (self.images, self.masks)
            )
            pairs, values = find_pairs(images, masks), self.table[stage]
            members = members_by_pixels(counted_pixels(pairs), values, self.min_pixels)
            ignored = self.ignored + (self._unseen_values() if stage == "train" else ())
            found[stage] = SegmentationDataset(pairs, values, members, self.image_size, ignored)
        return found

    def _unseen_values(self) -> tuple[int, ...]:
        """The values of the classes of val and test that training ignores."""
        return (
            ()
            if self.unseen == "background"
            else (*self.table["val"].values(), *self.table["test"].values())
        )


def check_table(classes: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The table of classes as it is, checked.

    Raises:
        FewshotError: a split is missing, or a class or a value stands twice or out of range.
    """
    if set(classes) != set(STAGES):
        raise FewshotError(
            f"classes are given for {', '.join(classes) or 'nothing'}; give them for train, val and"
            " test"
        )
    every = [(name, value) for stage in STAGES for name, value in classes[stage].items()]
    for place, what in ((0, "class"), (1, "value")):
        seen = [entry[place] for entry in every]
        if twice := sorted({entry for entry in seen if seen.count(entry) > 1}, key=str):
            raise FewshotError(
                f"the {what} {twice[0]!r} stands twice in classes; leave it in one split"
            )
    if wrong := [(name, value) for name, value in every if not 0 <= value < 255]:
        raise FewshotError(
            f"class {wrong[0][0]!r} has the value {wrong[0][1]}; values of masks are 0 ... 254"
        )
    return {stage: dict(classes[stage]) for stage in STAGES}
