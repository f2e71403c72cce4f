"""mini-ImageNet and tiered-ImageNet."""

from abc import abstractmethod
from typing import Any, ClassVar

from fewshot.datamodules.published import PackedImageDataModule
from fewshot.datasets.mini_imagenet import load_mini_imagenet
from fewshot.datasets.reading.downloads import data_root
from fewshot.datasets.tiered_imagenet import load_tiered_imagenet
from fewshot.episodes.class_dataset import ClassDataset


class ImageNetPartDataModule(PackedImageDataModule):
    """A part of ImageNet whose files are in use in several forms.

    The one that is found stands in the results.

    Args:
        **kwargs: arguments of `PackedImageDataModule`.
    """

    form: str | None = None
    # of mini-ImageNet's training images, as MetaOptNet's code has them
    mean = (0.4721, 0.4533, 0.4100)
    std = (0.2772, 0.2677, 0.2845)

    @abstractmethod
    def read(self) -> tuple[str, dict[str, ClassDataset]]:
        """The form of the files, and the classes of train, val and test."""

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the form of the files among them."""
        return {**super().protocol(), "files": self.form}

    def load(self) -> dict[str, ClassDataset]:
        """The classes of train, val and test."""
        self.form, datasets = self.read()
        return datasets


class MiniImageNetDataModule(ImageNetPartDataModule):
    """MiniImageNet: 100 classes of ImageNet, 600 images of 84x84 each, split 64/16/20.

    Paper: arXiv:1606.04080.

    The split is Ravi and Larochelle's. `fewshot.datasets.mini_imagenet.load_mini_imagenet` names
    the four forms of the files that `root` may hold. The packed store takes 1.3 GB. 600, 1000, 2000
    or 10 000 test episodes are in use.

    Args:
        **kwargs: arguments of `PackedImageDataModule`.
    """

    benchmark: ClassVar[str] = "mini-ImageNet"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @property
    def split_name(self) -> str:
        """The split of Ravi and Larochelle."""
        return "ravi"

    def read(self) -> tuple[str, dict[str, ClassDataset]]:
        """Read mini-ImageNet."""
        cache = data_root(None) / "mini_imagenet"
        return load_mini_imagenet(self.root, cache, self.image_size, self.verify, self.verify_store)


class TieredImageNetDataModule(ImageNetPartDataModule):
    """TieredImageNet: 608 classes of ImageNet, 779 165 images of 84x84, split 351/97/160.

    Paper: arXiv:1803.00676.

    Train, validation and test share no superclass.
    `fewshot.datasets.tiered_imagenet.load_tiered_imagenet` names the three forms of the files that
    `root` may hold. The packed store takes 16.5 GB.

    Args:
        **kwargs: arguments of `PackedImageDataModule`.
    """

    benchmark: ClassVar[str] = "tiered-ImageNet"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    @property
    def split_name(self) -> str:
        """The split of Ren et al., by superclass."""
        return "ren"

    def read(self) -> tuple[str, dict[str, ClassDataset]]:
        """Read tiered-ImageNet."""
        cache = data_root(None) / "tiered_imagenet"
        return load_tiered_imagenet(
            self.root, cache, self.image_size, self.verify, self.verify_store
        )
