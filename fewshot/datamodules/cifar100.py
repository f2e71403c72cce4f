"""CIFAR-FS and FC100: two class splits of CIFAR-100."""

from typing import Any, ClassVar

from fewshot.datamodules.published import PublishedImageDataModule
from fewshot.datasets.cifar100 import CifarSplit, load_cifar100
from fewshot.episodes.class_dataset import ClassDataset


class Cifar100DataModule(PublishedImageDataModule):
    """A split of CIFAR-100's 100 classes of 600 images, 32x32 in colour.

    Args:
        **kwargs: arguments of `PublishedImageDataModule`.
    """

    split: ClassVar[CifarSplit]
    in_channels = 3
    image_size = 32
    mean = (0.5071, 0.4866, 0.4409)  # of all 50 000 training images
    std = (0.2673, 0.2564, 0.2762)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def load(self) -> dict[str, ClassDataset]:
        """The classes of train, val and test."""
        return load_cifar100(self.root, self.split, self.download, self.verify)


class CIFARFSDataModule(Cifar100DataModule):
    """CIFARFS: CIFAR-100's classes split 64/16/20, 600 images of 32x32 a class.

    Paper: arXiv:1805.08136.

    `root` holds ``cifar-100-python`` (or its archive, read in place), or `download` fetches it.

    Args:
        **kwargs: arguments of `PublishedImageDataModule`.
    """

    benchmark: ClassVar[str] = "CIFAR-FS"
    split: ClassVar[CifarSplit] = "cifar_fs"

    @property
    def split_name(self) -> str:
        """The split of Bertinetto et al."""
        return "bertinetto"


class FC100DataModule(Cifar100DataModule):
    """FC100: CIFAR-100's classes split 60/20/20 by superclass, 600 images of 32x32 a class.

    Paper: arXiv:1805.10123.

    `root` holds ``cifar-100-python`` (or its archive, read in place), or `download` fetches it.

    Args:
        **kwargs: arguments of `PublishedImageDataModule`.
    """

    benchmark: ClassVar[str] = "FC100"
    split: ClassVar[CifarSplit] = "fc100"

    @property
    def split_name(self) -> str:
        """The split of Oreshkin et al., by superclass."""
        return "oreshkin"
