"""CIFAR-100, and the two class splits that few-shot benchmarks make of it (Krizhevsky, 2009).

https://www.cs.toronto.edu/~kriz/cifar.html; no licence is stated there. 100 classes in 20
superclasses, 600 images of 32x32 each. CIFAR-FS (arXiv:1805.08136) splits the classes, FC100
(arXiv:1805.10123) the superclasses.
"""

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch

from fewshot.datasets.reading.pickles import load_pickle
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

CifarSplit: TypeAlias = Literal["cifar_fs", "fc100"]
SIZE = 32
FOLDER = "cifar-100-python"
PLACES = (FOLDER, f"cifar100/{FOLDER}", "")
REMEDY = "delete it and fetch it again with download: true"
CIFAR_FS_VAL = """
beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree motorcycle otter sea
shark television tractor
"""
CIFAR_FS_TEST = """
baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose snail sweet_pepper
table telephone wardrobe whale woman worm
"""
FC100_VAL = (8, 11, 13, 16)  # superclasses, in the order of their names
FC100_TEST = (0, 7, 12, 14)


def load_cifar100(
    root: Path, split: CifarSplit, download: bool = False, verify: bool = True
) -> dict[str, ClassDataset]:
    """Read CIFAR-100's training and test images together and split its classes.

    Args:
        root: holds ``train``, ``test`` and ``meta`` of the Python version, itself or in
            ``cifar-100-python``; or ``cifar-100-python.tar.gz``, which is read in place.
        split: ``cifar_fs`` 64/16/20 classes, or ``fc100`` 60/20/20, those of 12/4/4 superclasses.
        download: fetch what is missing into `root`.
        verify: refuse other files than the original. Without it a part of CIFAR-100 in the same
            form will do.

    Returns:
        train, val and test: images uint8 (n, 3, 32, 32), the classes sorted by name.

    Raises:
        FewshotError: a file is missing, damaged or, with `verify`, not the original; or the
            download fails.
    """
    if split not in ("cifar_fs", "fc100"):
        raise FewshotError(f"unknown split of CIFAR-100 {split!r}; use cifar_fs or fc100")
    files = _read_files(root, download)
    if verify:
        _verify(files)
    meta = _part(files, "meta", ("fine_label_names", "coarse_label_names"))
    parts = [
        _part(files, name, ("data", "fine_labels", "coarse_labels")) for name in ("train", "test")
    ]
    folder = files["train"][0].parent
    try:
        images = np.concatenate([np.asarray(part["data"], np.uint8) for part in parts]).reshape(
            -1, 3, SIZE, SIZE
        )
        fine, coarse = (
            np.concatenate([np.asarray(part[key], np.int64) for part in parts])
            for key in ("fine_labels", "coarse_labels")
        )
        if not len(images) == len(fine) == len(coarse):
            raise ValueError(
                f"{len(images)} images, {len(fine)} fine and {len(coarse)} coarse labels"
            )
    except (ValueError, TypeError) as error:
        raise FewshotError(
            f"{folder} does not hold CIFAR-100's arrays ({error}); {REMEDY}"
        ) from error
    names = [str(name) for name in meta["fine_label_names"]]
    superclass = {
        names[f]: int(c) for f, c in zip(fine.tolist(), coarse, strict=True) if 0 <= f < len(names)
    }
    if len(superclass) != 100 or fine.max() >= 100:
        raise FewshotError(
            f"{folder} holds images of {len(superclass)} classes, CIFAR-100 has 100; {REMEDY}"
        )
    rows = np.argsort(fine, kind="stable")
    counts = np.bincount(fine, minlength=100)
    whole = ClassDataset(torch.from_numpy(images[rows]), counts, tuple(names))
    return {
        part: whole.select([names.index(name) for name in sorted(classes)])
        for part, classes in split_classes(superclass, split).items()
    }


def split_classes(superclass: dict[str, int], split: CifarSplit) -> dict[str, list[str]]:
    """The classes that train, validate and test.

    Args:
        superclass: of each class the number of its superclass, in the order of their names.
        split: see `load_cifar100`.
    """
    if split == "cifar_fs":
        held_out = dict.fromkeys(CIFAR_FS_VAL.split(), "val") | dict.fromkeys(
            CIFAR_FS_TEST.split(), "test"
        )
        side = {name: held_out.get(name, "train") for name in superclass}
    else:
        sides = dict.fromkeys(FC100_VAL, "val") | dict.fromkeys(FC100_TEST, "test")
        side = {name: sides.get(number, "train") for name, number in superclass.items()}
    return {
        part: [name for name in side if side[name] == part] for part in ("train", "val", "test")
    }


def _read_files(root: Path, download: bool) -> dict[str, tuple[Path, bytes]]:
    """The path and the content of ``train``, ``test`` and ``meta``."""
    names = ("train", "test", "meta")
    archive = root / f"{FOLDER}.tar.gz"
    for attempt in (False, True):
        for folder in (root / place for place in PLACES):
            if all((folder / name).is_file() for name in names):
                return {name: (folder / name, (folder / name).read_bytes()) for name in names}
        if archive.is_file():
            return {name: (archive / name, _member(archive, name)) for name in names}
        if not download or attempt:
            break
        import torchvision  # here: it takes a second

        try:
            torchvision.datasets.CIFAR100(root, download=True)
        except (OSError, RuntimeError) as error:
            raise FewshotError(
                f"could not download CIFAR-100 ({error}); put {archive.name} in {root} by hand"
            ) from error
    raise FewshotError(
        f"{root} does not hold CIFAR-100: expected {FOLDER}/ with train, test and meta, or"
        f" {archive.name}; set download: true, or fetch the Python version from"
        " www.cs.toronto.edu/~kriz/cifar.html (no licence is stated; cite the report)"
    )


def _member(archive: Path, name: str) -> bytes:
    try:
        with tarfile.open(archive) as file:
            content = file.extractfile(f"{FOLDER}/{name}")
            assert content is not None  # a member that is no file raises KeyError
            return content.read()
    except (tarfile.TarError, OSError, EOFError, KeyError) as error:
        raise FewshotError(f"{archive} is truncated or corrupt ({error}); {REMEDY}") from error


def _verify(files: dict[str, tuple[Path, bytes]]) -> None:
    import torchvision  # here: it takes a second

    original = torchvision.datasets.CIFAR100
    md5 = dict(
        [
            *original.train_list,
            *original.test_list,
            (original.meta["filename"], original.meta["md5"]),
        ]
    )
    for name, (path, content) in files.items():
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5[name]:
            raise FewshotError(
                f"{path} is not CIFAR-100's (its MD5 differs); {REMEDY}, or set verify: false"
            )


def _part(files: dict[str, tuple[Path, bytes]], name: str, keys: tuple[str, ...]) -> dict[str, Any]:
    path, content = files[name]
    part = load_pickle(path, io.BytesIO(content))
    missing = next((key for key in keys if not isinstance(part, dict) or key not in part), None)
    if missing:
        raise FewshotError(f"{path} has no {missing!r}, as CIFAR-100's has; {REMEDY}")
    found: dict[str, Any] = part
    return found
