"""Your own images as a benchmark."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fewshot.arguments import Count, Natural, NonNegative
from fewshot.datamodules.images import ImageDataModule
from fewshot.datasets.image_folder import find_split_folders, load_image_folder, split_table
from fewshot.episodes.class_dataset import ClassDataset


class ImageFolderDataModule(ImageDataModule):
    """ImageFolder: your own images, ``root/<class>/...`` or ``root/{train,val,test}/<class>/...``.

    The defaults are those of mini-ImageNet: 84x84 in colour, 15 queries a class. The classes of
    each split stand beside every result, in a form that can be given as `classes`. Paper: none, the
    images are yours.

    Args:
        root: the folder.
        image_size: side in pixels; the middle square of each image is resized to it.
        channels: 3 for RGB, 1 for grey.
        classes: the class names of train, val and test. None: as the split folders say, or by
            `fractions` where there are none.
        fractions: shares of the classes that train, validate and test.
        split_seed: seeds which classes they are.
        queries: query examples a class.
        **kwargs: arguments of `ImageDataModule`.
    """

    benchmark: ClassVar[str] = "ImageFolder"
    can_download: ClassVar[bool] = False

    def __init__(
        self,
        root: str,
        image_size: Count = 84,
        channels: Literal[1, 3] = 3,
        classes: Mapping[str, list[str]] | None = None,
        fractions: tuple[NonNegative, NonNegative, NonNegative] = (0.6, 0.2, 0.2),
        split_seed: Natural = 0,
        queries: Count = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, queries=queries, **kwargs)
        self.image_size, self.in_channels = image_size, channels
        self.channels, self.classes, self.fractions, self.split_seed = (
            channels,
            classes,
            fractions,
            split_seed,
        )

    @property
    def split_name(self) -> str:
        """How the classes were split."""
        if self.classes is not None:
            return "given classes"
        return (
            "split folders"
            if find_split_folders(self.root)
            else f"drawn, split_seed {self.split_seed}"
        )

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the classes of each split among them."""
        return {
            **super().protocol(),
            "image_size": self.image_size,
            "classes": split_table(self.datasets),
        }

    # the base's would read the images for the protocol, and list every class
    def __str__(self) -> str:
        return f"{type(self).__name__}(root={self.root}, way={self.way}, shot={self.shot})"

    def load(self) -> dict[str, ClassDataset]:
        """The images of train, val and test."""
        return load_image_folder(
            self.root, self.image_size, self.channels, self.classes, self.fractions, self.split_seed
        )
