"""Double and Triple MNIST: numbers of several handwritten digits."""

from typing import Any, ClassVar

from fewshot.arguments import Count
from fewshot.datamodules.published import PublishedImageDataModule
from fewshot.datasets.multi_digit import SPLIT_SEED, load_multi_digit
from fewshot.episodes.class_dataset import ClassDataset


class MultiDigitDataModule(PublishedImageDataModule):
    """Numbers of `digits` digits, composed from MNIST when an episode asks for them.

    Args:
        images_per_class: images of each number; an image does not depend on it.
        **kwargs: arguments of `PublishedImageDataModule`.
    """

    digits: ClassVar[int]
    in_channels = 1
    bright_ink = True

    def __init__(self, images_per_class: Count = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.images_per_class = images_per_class

    @property
    def split_name(self) -> str:
        """The published shuffle of the numbers."""
        return f"published (shuffle {SPLIT_SEED})"

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result."""
        return {**super().protocol(), "images_per_class": self.images_per_class}

    def load(self) -> dict[str, ClassDataset]:
        """The numbers of train, val and test."""
        return load_multi_digit(
            self.root,
            self.digits,
            self.image_size,
            self.images_per_class,
            self.download,
            self.verify,
        )


class DoubleMNISTDataModule(MultiDigitDataModule):
    """DoubleMNIST: the numbers 00 to 99 in handwritten digits, 64x64 grey, classes 64/16/20.

    Composed from MNIST (`root`, or `download`) on demand, which is all that is stored. The classes
    are the published lists, the images other ones. Source: github.com/shaohua0116/MultiDigitMNIST.
    Paper: none.

    Args:
        **kwargs: arguments of `MultiDigitDataModule`.
    """

    benchmark: ClassVar[str] = "Double MNIST"
    digits: ClassVar[int] = 2
    image_size = 64

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)


class TripleMNISTDataModule(MultiDigitDataModule):
    """TripleMNIST: the numbers 000 to 999 in handwritten digits, 84x84 grey, classes 640/160/200.

    Composed from MNIST (`root`, or `download`) on demand, which is all that is stored. The classes
    are the published lists, the images other ones. Source: github.com/shaohua0116/MultiDigitMNIST.
    Paper: none.

    Args:
        **kwargs: arguments of `MultiDigitDataModule`.
    """

    benchmark: ClassVar[str] = "Triple MNIST"
    digits: ClassVar[int] = 3
    image_size = 84

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
