"""Your own images: a folder of class folders, or train, val and test folders of class folders."""

import difflib
import logging
import os
import random
import re
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from fewshot.datasets.reading.decoding import read_image
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

log = logging.getLogger(__name__)

Name = TypeVar("Name", bound=Hashable)

IMAGE_FILE = re.compile(
    r"[^.].*\.(avif|bmp|gif|jfif|jpe|jpe?g|p[bgnp]m|png|tiff?|webp)", re.IGNORECASE
)
SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}
PROGRESS_FROM = 1000  # images; reading fewer takes no time worth a progress line


def load_image_folder(
    root: Path,
    image_size: int = 84,
    channels: Literal[1, 3] = 3,
    classes: Mapping[str, Sequence[str]] | None = None,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
    split_seed: int = 0,
) -> dict[str, ClassDataset]:
    """Load ``root/<class>/...`` or ``root/{train,val,test}/<class>/...`` into memory.

    ``valid`` and ``validation`` are read as ``val``. Folders inside a class are searched too.
    Files that are no images are passed over, which one line tells, and hidden ones in silence.

    `fewshot.datasets.reading.decoding.read_image` says how an image is brought to size.

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
        FewshotError: a folder is missing, empty or unreadable, an image cannot be decoded, a class
            has no image or stands in two splits, or an argument is wrong.
    """
    if image_size < 1 or channels not in (1, 3):
        raise FewshotError(
            f"image_size {image_size}, channels {channels}: use a positive size and 1 or 3 channels"
        )
    table = _find_classes(root, classes, fractions, split_seed)
    found = class_images(
        root, {(split, c): folder for split, of in table.items() for c, folder in of.items()}
    )
    files = {split: [found[split, c] for c in sorted(table[split])] for split in table}
    return {
        split: ClassDataset(
            _read_images([path for paths in files[split] for path in paths], image_size, channels),
            np.array([len(paths) for paths in files[split]], np.int64),
            tuple(sorted(table[split])),
        )
        for split in SPLITS
    }


def split_table(datasets: Mapping[str, ClassDataset]) -> dict[str, list[str]]:
    """The class names of each split.

    Given to `load_image_folder` as `classes`, they make the same split.
    """
    return {split: list(dataset.classes) for split, dataset in datasets.items()}


def draw_split(
    names: Sequence[str], fractions: tuple[float, float, float], split_seed: int
) -> dict[str, list[str]]:
    """Share out the sorted names by `fractions`, each part one at least.

    They are shuffled by ``random.Random(split_seed)``.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise FewshotError(f"fractions {fractions}: give three positive shares that add up to 1")
    if len(names) < 3:
        raise FewshotError(
            f"only {len(names)} class folders ({', '.join(names)}); add more, at least 3 are needed"
        )
    val, test = (max(1, round(len(names) * fraction)) for fraction in fractions[1:])
    train = len(names) - val - test
    if train < 1:
        raise FewshotError(
            f"fractions {fractions} leave none of {len(names)} classes to train; raise the first"
        )
    order = sorted(names)
    random.Random(split_seed).shuffle(order)
    return {"train": order[:train], "val": order[train : train + val], "test": order[train + val :]}


def find_split_folders(root: Path) -> dict[str, Path] | None:
    """The train, val and test folders of `root`; None where its folders are classes."""
    split_folders: dict[str, Path] = {}
    other_folders = []
    for name, folder in subfolders(root).items():
        split = SPLIT_FOLDERS.get(name.lower())
        if split is None:
            other_folders.append(name)
        elif split in split_folders:
            raise FewshotError(
                f"{root} has both {split_folders[split].name} and {name}; keep one of them"
            )
        else:
            split_folders[split] = folder
    if not split_folders or (len(split_folders) == 1 and other_folders):
        return None
    if other_folders:
        raise FewshotError(
            f"{root} has the folder {other_folders[0]!r} beside {', '.join(split_folders)}; move"
            " it away, or give `classes`"
        )
    if missing := [split for split in SPLITS if split not in split_folders]:
        raise FewshotError(
            f"{root} has no folder {missing[0]!r}; add it, or give `classes` of a folder without"
            " splits"
        )
    return split_folders


def _read_images(paths: Sequence[Path], image_size: int, channels: Literal[1, 3]) -> torch.Tensor:
    images = np.empty((len(paths), channels, image_size, image_size), np.uint8)
    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        decoded: Iterable[NDArray[np.uint8]] = pool.map(
            lambda p: read_image(p, image_size, channels), paths
        )
        if len(paths) > PROGRESS_FROM:
            decoded = track(decoded, "decoding images", len(paths), console=Console(stderr=True))
        for index, image in enumerate(decoded):
            images[index] = image
    return torch.from_numpy(images)


def _find_classes(
    root: Path,
    classes: Mapping[str, Sequence[str]] | None,
    fractions: tuple[float, float, float],
    split_seed: int,
) -> dict[str, dict[str, Path]]:
    """Each split's class folders: as `classes` says, else as the split folders do, else drawn."""
    if classes is None and (split_folders := find_split_folders(root)):
        table = {split: subfolders(folder) for split, folder in split_folders.items()}
    else:
        folders = subfolders(root)
        chosen = draw_split(list(folders), fractions, split_seed) if classes is None else classes
        if set(chosen) != set(SPLITS):
            raise FewshotError(
                f"classes are given for {', '.join(chosen)}; give them for train, val and test"
            )
        table = {
            split: {n: _known(n, folders, root) for n in names} for split, names in chosen.items()
        }
    for split in SPLITS:
        if not table[split]:
            raise FewshotError(f"{root}: the split {split} has no classes; give it at least one")
    for one, other in combinations(SPLITS, 2):
        if shared := sorted(table[one].keys() & table[other].keys()):
            raise FewshotError(
                f"{root}: the class {shared[0]!r} stands in {one} and in {other}; leave it in one"
                " of them"
            )
    return table


def _known(name: str, folders: Mapping[str, Path], root: Path) -> Path:
    if name not in folders:
        near = difflib.get_close_matches(name, folders, 1, cutoff=0)
        raise FewshotError(f"{root} has no class folder {name!r}; did you mean {near[0]!r}?")
    return folders[name]


def subfolders(folder: Path) -> dict[str, Path]:
    """The visible folders in `folder` by name, sorted."""
    try:
        folders = {
            p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")
        }
    except OSError as error:
        raise FewshotError(
            f"{folder} is no folder that can be read ({error.strerror}); correct `root`"
        ) from error
    if not folders:
        raise FewshotError(f"{folder} holds no folders; expected a folder of images for each class")
    return folders


def image_files(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """The visible images in `folder` and the folders below, sorted.

    Args:
        folder: the folder.
        others: takes the endings of the visible files that are passed over.
    """

    def fail(error: OSError) -> None:
        raise FewshotError(
            f"{error.filename} cannot be read ({error.strerror}); correct its access rights"
        )

    files, seen = [], set()
    for place, below, names in os.walk(folder, onerror=fail, followlinks=True):
        # A link to a folder further up would lead round and round.
        seen.add(os.path.realpath(place))
        below[:] = [
            n
            for n in below
            if not n.startswith(".") and os.path.realpath(Path(place, n)) not in seen
        ]
        images = [n for n in names if IMAGE_FILE.fullmatch(n)]
        files += [Path(place, n) for n in images]
        if others is not None:
            rest = (Path(n) for n in {*names}.difference(images) if not n.startswith("."))
            others.update(path.suffix.lower() or "no ending" for path in rest)
    if not files:
        passed = f" but {_counted(others)}" if others else ""
        raise FewshotError(
            f"{folder} holds no image (png, jpg, webp, tiff, ...){passed}; fill or remove this"
            " class"
        )
    return sorted(files)


def class_images(root: Path, folders: Mapping[Name, Path]) -> dict[Name, list[Path]]:
    """The images of each class's folder; one line tells which files of `root` are passed over."""
    others: Counter[str] = Counter()
    images = {name: image_files(folder, others) for name, folder in folders.items()}
    _tell_passed_over(root, others)
    return images


@rank_zero_only
def _tell_passed_over(folder: Path, others: Counter[str]) -> None:
    """Say in one line which files of a folder were passed over, counted by their endings."""
    if others:
        log.warning(
            "%s: passed over %s, which cannot be read as images here; convert them to png or jpg",
            printable(str(folder)),
            _counted(others),
        )


def _counted(others: Counter[str]) -> str:
    kinds = ", ".join(f"{number} {ending}" for ending, number in others.most_common(5))
    more = ", ..." if len(others) > 5 else ""
    return printable(f"{others.total()} files ({kinds}{more})")
