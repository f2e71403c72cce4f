"""Your own images as a benchmark."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, TypeAlias

from lightning.pytorch.utilities import rank_zero_info

from fewshot.arguments import Count, Natural, NonNegative, Way
from fewshot.datamodules.images import ImageDataModule
from fewshot.datasets.fitting import Fit, SplitBy, Wanted, fit
from fewshot.datasets.fitting_words import refusal, summary
from fewshot.datasets.image_folder import ImageFolder, read_folder, split_table
from fewshot.datasets.reading.downloads import data_root
from fewshot.datasets.reading.folders import find_split_folders
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

Auto: TypeAlias = Literal["auto"]
Fractions: TypeAlias = tuple[NonNegative, NonNegative, NonNegative]


class ImageFolderDataModule(ImageDataModule):
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
    can_download: ClassVar[bool] = False

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
        split_by: SplitBy = "auto",
        min_examples: Count | None = None,
        skip_broken: bool = False,
        **kwargs: Any,
    ) -> None:
        self.channels, self.classes, self.fractions = channels, classes, fractions
        self.split_seed, self.split_by, self.min_examples = split_seed, split_by, min_examples
        self.image_size, self.in_channels, self.skip_broken = image_size, channels, skip_broken
        self.root, self.verify_store = data_root(root), False
        self._read: tuple[ImageFolder, Fit] | None = None
        most = {name: (kwargs.get(f"{name}s") or (None, None))[1] for name in ("way", "shot")}
        own = ("train_way", "val_way", "train_shot", "train_queries")
        self.wanted = Wanted(
            way=most["way"] or _told(way),
            shot=most["shot"] or _told(shot),
            queries=_told(queries),
            **{name: kwargs.get(name) for name in own},
            fractions=None if fractions == "auto" else fractions,
            split_by=split_by,
            split_seed=split_seed,
            min_examples=min_examples,
            unequal=bool(kwargs.get("unequal_shots")),
            tests=not isinstance(kwargs.get("test_episodes"), str),
        )
        if "auto" in (way, shot, queries):
            sizes = self._sizes()
            way, shot, queries = (
                size if given == "auto" else given
                for size, given in zip(sizes, (way, shot, queries), strict=True)
            )
        super().__init__(root=root, way=way, shot=shot, queries=queries, **kwargs)

    def _sizes(self) -> tuple[int, int, int]:
        """The way, shot and queries that the folder allows."""
        try:
            found = self.read()[1]
        except FewshotError:
            if self.wanted.tests:
                raise
            # the test episodes of a file need no folder: training says what is wrong with it
            return 5, 1, 15
        return found.way, found.shot, found.queries

    def read(self) -> tuple[ImageFolder, Fit]:
        """The folder and what it allows, read once.

        Raises:
            FewshotError: it does not allow what is asked for, or has files that are broken.
        """
        if self._read is None:
            folder = read_folder(
                self.root, self.image_size, self.channels, self.classes, self.verify_store
            )
            found = fit(folder.counts, self.wanted, folder.given)
            used = sorted({name for of in found.rows.values() for name in of})
            broken = folder.faults([n for n in folder.counts if n not in found.left_out])
            if found.faults or (broken and not self.skip_broken):
                told = [] if self.skip_broken else broken
                raise FewshotError(
                    refusal(str(self.root), folder.counts, self.wanted, folder.given, told)
                )
            if "auto" in map(self.init_args.get, ("way", "shot", "queries", "fractions")):
                rank_zero_info(summary(str(self.root), folder.counts, found, folder.faults(used)))
            self._read = folder, found
        return self._read

    @property
    def split_name(self) -> str:
        """How the classes were split."""
        if self.classes is not None:
            return "given classes"
        if find_split_folders(self.root):
            return "split folders"
        by = "images, " if self.read()[1].by == "images" else ""
        return f"{by}drawn, split_seed {self.split_seed}"

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

    def prepare(self) -> None:
        """Decode the images, or check every decoded one and mend those that are corrupt."""
        self._datasets = self._read = None
        self.verify_store = True
        try:
            super().prepare()
        finally:
            self.verify_store = False

    def load(self) -> dict[str, ClassDataset]:
        """The images of train, val and test."""
        folder, found = self.read()
        return folder.datasets(found.rows)


def _told(value: int | Auto) -> int | None:
    return None if value == "auto" else value
