"""Benchmarks of many image files that know their splits: found, checked, and loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewshot.datasets.image_folder import class_images
from fewshot.datasets.reading.decoding import ImageSource
from fewshot.datasets.reading.fingerprints import fingerprint_of
from fewshot.datasets.reading.folders import image_files, subfolders
from fewshot.datasets.reading.published import Found, Numbers, check_classes, find_form, load_packed
from fewshot.datasets.reading.store import Source
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

SPLITS = ("train", "val", "test")
Reader: TypeAlias = Callable[[Mapping[str, Path], str], dict[str, list[ImageSource]]]
"""From the paths of a form and a split to the images of each class."""


@dataclass(frozen=True)
class PublishedSplits:
    """A benchmark of many image files that know their splits: what it is, and how to load it.

    Args:
        places: folders below the data's root that people have the files in.
        forms: of each form that the files may have the names of its files or folders by what they
            are; one of them is ``train``.
        readers: of each form, the images of each class from its paths and a split.
        classes: the classes of each split; files that number theirs are held to how many there are.
        named: what a class's name looks like.
        check_numbers: checks the images of each class of each split where they are verified; gets
            the folder as text.
        absent: what to say after the root where nothing is found.
    """

    places: Sequence[str]
    forms: Mapping[str, Mapping[str, str]]
    readers: Mapping[str, Reader]
    classes: Mapping[str, Sequence[str]]
    named: str
    check_numbers: Callable[[str, Numbers], None]
    absent: str

    def load(
        self,
        root: Path,
        cache: Path,
        image_size: int = 84,
        verify: bool = True,
        verify_store: bool = False,
    ) -> tuple[str, dict[str, ClassDataset]]:
        """The form that the files have, and train, val and test, checked in every case.

        Args:
            root: holds one of the forms, itself or in one of the `places`.
            cache: folder of the packed store.
            image_size: side in pixels.
            verify: the original's numbers of images are required.
            verify_store: check the whole store.

        Raises:
            FewshotError: nothing is found, or what is found is damaged or lacks a class.
        """
        form, datasets = load_packed(
            lambda: self._find(root, verify), cache, image_size, verify_store
        )
        # not with the source alone: a store is not packed again because `verify` is set
        self._check(str(root), counted(datasets), verify)
        return form, datasets

    def _find(self, root: Path, verify: bool) -> Found:
        found = find_form(root, self.places, self.forms)
        if found is None:
            raise FewshotError(f"{root} {self.absent}")
        form, paths = found
        folder = paths["train"].parent
        files = [path for path in paths.values() if path.is_file()]
        files += [file for path in paths.values() if path.is_dir() for file in image_files(path)]

        def source() -> Source:
            content = {split: self.readers[form](paths, split) for split in SPLITS}
            numbers = {s: {c: len(images) for c, images in x.items()} for s, x in content.items()}
            self._check(str(folder), numbers, verify)
            return content

        return Found(form, fingerprint_of(files, folder), source)

    def _check(self, where: str, numbers: Numbers, verify: bool) -> None:
        check_classes(where, numbers, self.classes, self.named)
        if verify:
            self.check_numbers(where, numbers)


def counted(datasets: Mapping[str, ClassDataset]) -> dict[str, dict[str, int]]:
    """The images of each class of each split."""
    return {
        split: dict(zip(dataset.classes, dataset.counts.tolist(), strict=True))
        for split, dataset in datasets.items()
    }


def read_class_folders(paths: Mapping[str, Path], split: str) -> dict[str, list[ImageSource]]:
    """The images of each folder of a split: a `Reader` of ``{train,val,test}/<class>/*.jpg``."""
    images = class_images(paths[split], subfolders(paths[split]))
    return {name: list(files) for name, files in images.items()}


def is_rgb(images: Any) -> bool:
    """Whether they are an array of colour images, (n, H, W, 3) uint8."""
    return (
        isinstance(images, np.ndarray)
        and images.dtype == np.uint8
        and images.ndim == 4
        and images.shape[3] == 3
    )


def by_number(
    images: Sequence[ImageSource] | NDArray[np.uint8], labels: NDArray[np.int64], split: str
) -> dict[str, list[ImageSource]]:
    """The images of each class, which files know by number: a class is the split and its number.

    Args:
        images: n of them.
        labels: of each the number of its class, (n,).
        split: splits number their classes alike, and are told apart by its name.
    """
    order = labels.argsort(kind="stable")
    numbers, starts = np.unique(labels[order], return_index=True)
    return {
        f"{split}{number:03d}": [images[i] for i in rows]
        for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True)
    }
