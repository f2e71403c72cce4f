"""Your own images: a folder of class folders, or train, val and test folders of class folders."""

import difflib
import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from fewshot.datasets.fitting import Rows
from fewshot.datasets.packed_images import in_memory, pack_images
from fewshot.datasets.reading.decoding import Channels, told_at_once
from fewshot.datasets.reading.folders import (
    SPLITS,
    find_images,
    find_split_folders,
    image_files,
    no_images,
    passed_over,
    subfolders,
)
from fewshot.datasets.splitting import check_given, draw_split
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

log = logging.getLogger(__name__)

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class ImageFolder:
    """The images of a folder, decoded.

    Args:
        root: the folder.
        given: the classes of train, val and test, where they are told; None: they are to be drawn.
        images: all images by class, uint8 (n, channels, image_size, image_size). A class of a split
            folder is called ``train/<class>``.
        broken: what is wrong with the files of a class that cannot be decoded.
    """

    root: Path
    given: Mapping[str, Sequence[str]] | None
    images: ClassDataset
    broken: Mapping[str, Sequence[str]]

    @property
    def counts(self) -> dict[str, int]:
        """How many images each class has."""
        return dict(zip(self.images.classes, self.images.counts.tolist(), strict=True))

    def datasets(self, rows: Rows) -> dict[str, ClassDataset]:
        """The images of train, val and test.

        Args:
            rows: of each split the classes, and of each class its images by their places.
        """
        starts = dict(zip(self.images.classes, self.images.starts.tolist(), strict=True))
        datasets = {}
        for split, classes in rows.items():
            empty = np.empty(0, np.int64)
            places = [starts[name] + np.asarray(of, np.int64) for name, of in classes.items()]
            every, inputs = np.concatenate([empty, *places]), self.images.inputs
            assert not isinstance(inputs, dict)
            datasets[split] = ClassDataset(
                inputs.select(every)
                if isinstance(inputs, LazyInputs)
                else inputs[torch.from_numpy(every)],
                np.array([len(of) for of in classes.values()], np.int64),
                tuple(name.rpartition("/")[2] for name in classes),
            )
        return datasets

    def faults(self, classes: Sequence[str]) -> list[str]:
        """What is wrong with the files of some classes."""
        return [fault for name in classes for fault in self.broken.get(name, ())]


def load_image_folder(
    root: Path,
    image_size: int = 84,
    channels: Channels = 3,
    classes: Mapping[str, Sequence[str]] | None = None,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    split_seed: int = 0,
) -> dict[str, ClassDataset]:
    """The images of class folders, or of such in split folders, by split; see `read_folder`.

    Args:
        root: the folder.
        image_size: side in pixels.
        channels: 3 for RGB, 1 for grey.
        classes: the class names of train, val and test; other classes are not used. None: as the
            split folders say, or by `fractions` where there are none.
        fractions: shares of the classes that train, validate and test, drawn by `split_seed`.
        split_seed: seeds that draw. Keep `split_table` of the result with what you measure.

    Returns:
        train, val and test: images uint8 (n, channels, image_size, image_size), classes sorted by
        name.

    Raises:
        FewshotError: as `read_folder`, or a class has no image or one that cannot be decoded.
    """
    folder = read_folder(root, image_size, channels, classes)
    counts = folder.counts
    split = folder.given or draw_split(list(counts), fractions, split_seed)
    used = [name for names in split.values() for name in names]
    if faults := folder.faults(used):
        raise FewshotError(told_at_once(faults))
    for name in used:
        if not counts[name]:
            image_files(root / name)  # says so
    return folder.datasets({s: {n: range(counts[n]) for n in sorted(split[s])} for s in SPLITS})


def read_folder(
    root: Path,
    image_size: int = 84,
    channels: Channels = 3,
    classes: Mapping[str, Sequence[str]] | None = None,
    verify_store: bool = False,
) -> ImageFolder:
    """Read ``root/<class>/...`` or ``root/{train,val,test}/<class>/...``.

    Images are decoded once, into a packed store in the cache folder.
    ``valid`` and ``validation`` are read as ``val``. Folders inside a class are searched too.
    Files that are no images are passed over, which one line tells, and hidden ones in silence.

    The store answers for the names, sizes and times of the files: when one has changed, it is made
    again, and one line says so. Where no store can be written, images are decoded into memory.

    `fewshot.datasets.reading.decoding.read_image` says how an image is brought to size.

    Args:
        root: the folder.
        image_size: side in pixels.
        channels: 3 for RGB, 1 for grey.
        classes: the class names of train, val and test; others are not looked at.
        verify_store: compare every stored image with its checksum, and pack again what differs.

    Raises:
        FewshotError: a folder is missing, empty or unreadable, a class stands in two splits, or an
            argument is wrong.
    """
    if image_size < 1 or channels not in (1, 3):
        raise FewshotError(
            f"image_size {image_size}, channels {channels}: use a positive size and 1 or 3 channels"
        )
    folders, given = _find_classes(root, classes)
    others: Counter[str] = Counter()
    files = {name: find_images(folder, others) for name, folder in folders.items()}
    tell_passed_over(root, others)
    every = [path for paths in files.values() for path in paths]
    if not every:
        return ImageFolder(root, given, in_memory(files, image_size, channels)[0], {})
    chosen = "" if classes is None else repr({s: sorted(classes[s]) for s in SPLITS})
    images, broken = pack_images(root, files, chosen, image_size, channels, verify_store)
    names = [name for name, paths in files.items() for _ in paths]
    faults: dict[str, list[str]] = {}
    for row, told in sorted(broken.items()):
        faults.setdefault(names[row], []).append(told)
    return ImageFolder(root, given, images, faults)


def split_table(datasets: Mapping[str, ClassDataset]) -> dict[str, list[str]]:
    """The class names of each split.

    Given to `load_image_folder` as `classes`, they make the same split.
    """
    return {split: list(dataset.classes) for split, dataset in datasets.items()}


def _find_classes(
    root: Path, classes: Mapping[str, Sequence[str]] | None
) -> tuple[dict[str, Path], dict[str, list[str]] | None]:
    """The class folders by name, and the names of each split where those are told."""
    if classes is not None:
        if set(classes) != set(SPLITS):
            raise FewshotError(
                f"classes are given for {', '.join(classes)}; give them for train, val and test"
            )
        folders = subfolders(root)
        given = {split: sorted(set(classes[split])) for split in SPLITS}
        chosen = {name: _known(name, folders, root) for of in given.values() for name in of}
    elif split_folders := find_split_folders(root):
        below = {split: subfolders(split_folders[split]) for split in SPLITS}
        given = {split: sorted(of) for split, of in below.items()}
        chosen = {f"{s}/{name}": below[s][name] for s in SPLITS for name in given[s]}
    else:
        return subfolders(root), None
    check_given(root, given)
    if classes is None:
        given = {split: [f"{split}/{name}" for name in of] for split, of in given.items()}
    return chosen, given


def _known(name: str, folders: Mapping[str, Path], root: Path) -> Path:
    if name not in folders:
        near = difflib.get_close_matches(name, folders, 1, cutoff=0)
        raise FewshotError(f"{root} has no class folder {name!r}; did you mean {near[0]!r}?")
    return folders[name]


def class_images(root: Path, folders: Mapping[Name, Path]) -> dict[Name, list[Path]]:
    """The images of each class's folder; one line tells which files of `root` are passed over.

    Raises:
        FewshotError: a class has none; all such are named.
    """
    others: Counter[str] = Counter()
    instead: Counter[str] = Counter()
    images, empty = {}, []
    for name, folder in folders.items():
        passed: Counter[str] = Counter()
        images[name] = find_images(folder, passed)
        others += passed
        if not images[name]:
            empty.append(folder)
            instead += passed
    if empty:
        raise no_images(empty, instead)
    tell_passed_over(root, others)
    return images


def images_below(folder: Path) -> list[Path]:
    """The images in and below a folder; one line tells which files are passed over.

    Raises:
        FewshotError: there is none.
    """
    others: Counter[str] = Counter()
    if not (files := find_images(folder, others)):
        raise no_images([folder], others, "give a folder of images, or an image")
    tell_passed_over(folder, others)
    return files


@rank_zero_only
def tell_passed_over(folder: Path, others: Counter[str]) -> None:
    """Say in one line which files of a folder were passed over, counted by their endings."""
    if others:
        log.warning("%s: %s", printable(str(folder)), passed_over(others))
