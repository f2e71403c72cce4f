"""PASCAL-5i: few-shot segmentation of everyday objects; its first benchmark."""

from pathlib import Path
from typing import Any, ClassVar, Literal

from fewshot.arguments import Count, Natural
from fewshot.datamodules.segmentation import SegmentationDataModule
from fewshot.datasets.pascal5i import CLASSES, fold_classes, load_pascal5i
from fewshot.datasets.segmentation import SegmentationDataset


class Pascal5iDataModule(SegmentationDataModule):
    """PASCAL-5i: photos of 20 everyday things in four folds, five classes tested, 15 trained.

    Paper: arXiv:1709.03410.

    VOC2012's ``JPEGImages`` and the masks ``SegmentationClassAug``. A published figure is the mean
    over the four folds, of 1000 test episodes each (or 5 x 1000). The class of an episode is drawn
    evenly, then its images. Masks are judged at `image_size` (PANet: 417, HSNet: 400).

    Args:
        root: the folder of VOC2012, or the one above it.
        fold: whose classes are tested, 0 ... 3.
        lists: the folder of the published lists, ``{trn,val}/fold{0..3}.txt`` with lines
            ``2007_000032__01``; None: which images show a class is read from the masks (by
            `min_pixels`), which ones are held out from VOC's own
            ``ImageSets/Segmentation/val.txt``.
        val_classes: validate on the training classes in held-out images (`train`), so that the
            tested classes are new, or on the tested classes themselves (`test`), as published code
            does.
        image_size: side in pixels that images and masks are resized to.
        test_episodes: test episodes, the same list every time.
        **kwargs: arguments of `SegmentationDataModule`.
    """

    benchmark: ClassVar[str] = "PASCAL-5i"
    classes = CLASSES

    def __init__(
        self,
        root: str | None = None,
        fold: Natural = 0,
        lists: str | None = None,
        val_classes: Literal["train", "test"] = "train",
        image_size: Count = 417,
        test_episodes: Count = 1000,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, image_size=image_size, test_episodes=test_episodes, **kwargs)
        fold_classes(fold)  # refuses an unknown one
        self.fold, self.lists, self.val_classes = fold, lists, val_classes

    @property
    def split_name(self) -> str:
        """The fold that is tested."""
        return f"fold {self.fold}"

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result."""
        lists = "from the masks" if self.lists is None else "given lists"
        return {**super().protocol(), "lists": lists, "val_classes": self.val_classes}

    def load(self) -> dict[str, SegmentationDataset]:
        """The images and classes of train, val and test."""
        lists = None if self.lists is None else Path(self.lists).expanduser()
        return load_pascal5i(
            self.root,
            self.fold,
            self.image_size,
            self.min_pixels,
            lists,
            self.val_classes == "test",
        )
