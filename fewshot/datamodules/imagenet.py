"""mini-ImageNet and tiered-ImageNet."""

from typing import Any, ClassVar

from fewshot.datamodules.published import PackedImageDataModule
from fewshot.datasets.mini_imagenet import MINI_IMAGENET
from fewshot.datasets.reading.downloads import data_root
from fewshot.datasets.reading.published_splits import PublishedSplits
from fewshot.datasets.tiered_imagenet import TIERED_IMAGENET
from fewshot.episodes.class_dataset import ClassDataset


class ImageNetPartDataModule(PackedImageDataModule):
    """A part of ImageNet whose files are in use in several forms.

    The one that is found stands in the results.

    Args:
        **kwargs: arguments of `PackedImageDataModule`.
    """

    source: ClassVar[PublishedSplits]
    folder: ClassVar[str]
    """Of the data root's cache, where the packed store goes."""
    form: str | None = None
    # of mini-ImageNet's training images, as MetaOptNet's code has them
    mean = (0.4721, 0.4533, 0.4100)
    std = (0.2772, 0.2677, 0.2845)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the form of the files among them."""
        return {**super().protocol(), "files": self.form}

    def load(self) -> dict[str, ClassDataset]:
        """The classes of train, val and test."""
        cache = data_root(None) / self.folder
        self.form, datasets = self.source.load(
            self.root, cache, self.image_size, self.verify, self.verify_store
        )
        return datasets


class MiniImageNetDataModule(ImageNetPartDataModule):
    """MiniImageNet: 100 classes of ImageNet, 600 images of 84x84 each, split 64/16/20.

    Paper: arXiv:1606.04080.

    The split is Ravi and Larochelle's. `fewshot.datasets.mini_imagenet` names the four forms of the
    files that `root` may hold. The packed store takes 1.3 GB. 600, 1000, 2000 or 10 000 test
    episodes are in use.

    Args:
        **kwargs: arguments of `PackedImageDataModule`.
    """

    benchmark: ClassVar[str] = "mini-ImageNet"
    source = MINI_IMAGENET
    folder = "mini_imagenet"

    @property
    def split_name(self) -> str:
        """The split of Ravi and Larochelle."""
        return "ravi"


class TieredImageNetDataModule(ImageNetPartDataModule):
    """TieredImageNet: 608 classes of ImageNet, 779 165 images of 84x84, split 351/97/160.

    Paper: arXiv:1803.00676.

    Train, validation and test share no superclass. `fewshot.datasets.tiered_imagenet` names the
    three forms of the files that `root` may hold. The packed store takes 16.5 GB.

    Args:
        **kwargs: arguments of `PackedImageDataModule`.
    """

    benchmark: ClassVar[str] = "tiered-ImageNet"
    source = TIERED_IMAGENET
    folder = "tiered_imagenet"

    @property
    def split_name(self) -> str:
        """The split of Ren et al., by superclass."""
        return "ren"
