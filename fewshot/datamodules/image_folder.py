"""Your own images as a benchmark."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from fewshot.arguments import Count, Natural, Way
from fewshot.datamodules.images import ImageDataModule
from fewshot.datamodules.own_data import Auto, Fractions, OwnDataModule
from fewshot.datasets.fitting import Noun
from fewshot.datasets.image_folder import ImageFolder, read_folder
from fewshot.datasets.reading.folders import find_split_folders
from fewshot.episodes.class_dataset import ClassDataset


class ImageFolderDataModule(OwnDataModule, ImageDataModule):
    """ImageFolder: your own images, ``root/<class>/...`` or ``root/{train,val,test}/<class>/...``.

    What is ``auto`` is fitted to the folder when the object is made, and said in one line; what you
    set holds. Six classes or more are split by class: `way` is a quarter of the classes, from 2 to
    5; 16 % of them, at least `way`, validate and 20 % test. Fewer are split by image: all of them
    train, validate and test, with a quarter of each one's images to validate and a quarter to test,
    and the test tells how well these classes are told apart, not new ones. Of the smallest class
    half is support, up to 5 images, and the rest queries, up to 15. Where nothing fits, one message
    lists every fault and the arguments that work. `fewshot check FOLDER` says all that before.

    Images are decoded once, into a store in the cache folder. The classes of each split stand
    beside every result, in a form that can be given as `classes`. Paper: none, the images are
    yours.

    Args:
        root: the folder.
        image_size: side in pixels; the middle square of each image is resized to it.
        channels: 3 for RGB, 1 for grey.
        classes: the class names of train, val and test. None: as the split folders say, or drawn
            where there are none.
        fractions: shares of the classes (or images) that train, validate and test.
        split_seed: seeds which ones they are.
        queries: query examples a class.
        way: classes of an episode.
        shot: support examples a class.
        split_by: what is drawn, ``classes`` or the ``images`` of each.
        min_examples: leave out classes with fewer images.
        skip_broken: leave out files that cannot be decoded; otherwise they are told and refused.
        **kwargs: arguments of `ImageDataModule`.
    """

    benchmark: ClassVar[str] = "ImageFolder"
    noun: ClassVar[Noun] = "image"

    def __init__(
        self,
        root: str,
        image_size: Count = 84,
        channels: Literal[1, 3] = 3,
        classes: Mapping[str, list[str]] | None = None,
        fractions: Fractions | Auto = "auto",
        split_seed: Natural = 0,
        queries: Count | Auto = "auto",
        way: Way | Auto = "auto",
        shot: Count | Auto = "auto",
        split_by: Literal["auto", "classes", "images"] = "auto",
        min_examples: Count | None = None,
        skip_broken: bool = False,
        **kwargs: Any,
    ) -> None:
        self.channels, self.image_size, self.in_channels = channels, image_size, channels
        self.verify_store = False
        super().__init__(
            root=root,
            classes=classes,
            fractions=fractions,
            split_seed=split_seed,
            queries=queries,
            way=way,
            shot=shot,
            split_by=split_by,
            min_examples=min_examples,
            skip_broken=skip_broken,
            **kwargs,
        )

    def examine(self) -> ImageFolder:
        """The folder's images, decoded."""
        return read_folder(
            self.root, self.image_size, self.channels, self.classes, self.verify_store
        )

    @property
    def is_split(self) -> bool:
        """Whether there are folders of train, val and test."""
        return find_split_folders(self.root) is not None

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the classes of each split among them."""
        return {**super().protocol(), "image_size": self.image_size}

    def prepare(self) -> None:
        """Decode the images, or check every decoded one and mend those that are corrupt."""
        self._datasets = self._fitted = None
        self.verify_store = True
        try:
            super().prepare()
        finally:
            self.verify_store = False

    def load(self) -> dict[str, ClassDataset]:
        """The images of train, val and test."""
        folder, found = self.fitted()
        datasets: dict[str, ClassDataset] = folder.datasets(found.rows)
        return datasets
