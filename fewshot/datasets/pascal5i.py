"""PASCAL-5i: the 20 classes of PASCAL VOC 2012 in four folds, masks joined with those of SBD.

The images are VOC2012's (``JPEGImages``), the masks ``SegmentationClassAug``: VOC's own where it
has them, else those of SBD (12 031 in all). Fold i holds the classes 5i+1 .. 5i+5. Which images
show a class is said by lists in the form of HSNet (arXiv:2104.01538), ``{trn,val}/fold{0..3}.txt``
with lines ``2007_000032__01``, or found in the masks.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from fewshot.datasets.segmentation import (
    Pair,
    SegmentationDataset,
    counted_pixels,
    find_pairs,
    members_by_pixels,
)
from fewshot.episodes.streams import Stage
from fewshot.errors import FewshotError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle"),
    *("bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person"),
    *("pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The value in the masks is the place here, from 1 on.

0 is the background, 255 the objects' borders.
"""
FOLDS = 4
SOURCE = (
    "get VOC2012 (VOCtrainval_11-May-2012.tar, host.robots.ox.ac.uk/pascal/VOC/voc2012; photos"
    " under Flickr's terms, for research) and the masks of SBD joined with it"
    " (SegmentationClassAug; home.bharathh.info/pubs/codes/SBD)"
)
LINE = re.compile(r"(.+)__(\d+)")


def fold_classes(fold: int) -> dict[str, int]:
    """The value in the masks of the five classes of a fold, by name.

    Raises:
        FewshotError: there is no such fold.
    """
    if fold not in range(FOLDS):
        raise FewshotError(f"fold is {fold}; PASCAL-5i has the folds 0, 1, 2 and 3")
    return {name: place for place, name in enumerate(CLASSES, start=1) if (place - 1) // 5 == fold}


def classes_of(stage: Stage, fold: int, val_on_test: bool) -> dict[str, int]:
    """The classes of a stage: those of `fold` at test, the other 15 in training.

    At validation either.
    """
    tested = fold_classes(fold)
    if stage == "test" or (stage == "val" and val_on_test):
        return tested
    return {name: place for place, name in enumerate(CLASSES, start=1) if name not in tested}


def load_pascal5i(
    root: Path,
    fold: int,
    image_size: int,
    min_pixels: int,
    lists: Path | None = None,
    val_on_test: bool = False,
) -> dict[str, SegmentationDataset]:
    """The images of train, val and test with their classes.

    Training is on the images that are not in VOC's validation set; validation and test are on those
    that are.

    Args:
        root: the folder of ``JPEGImages`` and ``SegmentationClassAug``, or one that has it as
            ``VOC2012`` or ``VOCdevkit/VOC2012``.
        fold: whose classes are tested, 0 ... 3.
        image_size: side in pixels.
        min_pixels: from which on an image is one of a class; lists have settled it already.
        lists: the folder of the lists; None: by the masks and VOC's
            ``ImageSets/Segmentation/val.txt``.
        val_on_test: validate on the classes of the test, as published code does, instead of on
            those of training.

    Raises:
        FewshotError: a file is missing or is none of its kind.
    """
    folder = find_voc(root)
    images, masks = folder / "JPEGImages", folder / "SegmentationClassAug"
    datasets: dict[str, SegmentationDataset] = {}
    stages: dict[Stage, dict[str, int]] = {
        stage: classes_of(stage, fold, val_on_test) for stage in ("train", "val", "test")
    }
    if lists is not None:
        for stage, values in stages.items():
            part = "trn" if stage == "train" else "val"
            folds = sorted({(value - 1) // 5 for value in values.values()})
            listed = [
                entry
                for number in folds
                for entry in read_list(lists / part / f"fold{number}.txt", number)
            ]
            datasets[stage] = _from_list(listed, values, images, masks, image_size)
        return datasets
    pairs = find_pairs(images, masks)
    counts, held_out = counted_pixels(pairs), read_names(folder / "ImageSets/Segmentation/val.txt")
    for stage, values in stages.items():
        rows = np.array([(mask.stem in held_out) != (stage == "train") for _, mask in pairs])
        chosen = [pair for pair, inside in zip(pairs, rows, strict=True) if inside]
        members = members_by_pixels(counts[rows], values, min_pixels)
        datasets[stage] = SegmentationDataset(chosen, values, members, image_size)
    return datasets


def find_voc(root: Path) -> Path:
    """The folder of ``JPEGImages`` and ``SegmentationClassAug`` in or below `root`.

    Raises:
        FewshotError: there is none; the message says where the data come from.
    """
    for folder in (root, root / "VOC2012", root / "VOCdevkit/VOC2012"):
        if (folder / "JPEGImages").is_dir() and (folder / "SegmentationClassAug").is_dir():
            return folder
    raise FewshotError(
        f"{root} has no PASCAL-5i: expected JPEGImages/*.jpg and SegmentationClassAug/*.png in it,"
        f" in VOC2012 or in VOCdevkit/VOC2012; {SOURCE}"
    )


def read_list(path: Path, fold: int) -> list[tuple[str, int]]:
    """The images of a fold's list with their classes.

    Raises:
        FewshotError: it cannot be read, or a line is none of an image and a class of the fold.
    """
    values = fold_classes(fold).values()
    entries = []
    for number, line in enumerate(_lines(path), start=1):
        match = LINE.fullmatch(line)
        if match is None or int(match[2]) not in values:
            raise FewshotError(
                f"{path}, line {number}: {line!r} is no image of a class of fold {fold}, such as"
                f" '2007_000032__{min(values):02d}'; correct the line, or leave out `lists`"
            )
        entries.append((match[1], int(match[2])))
    return entries


def read_names(path: Path) -> set[str]:
    """The names of a list of VOC's image sets.

    Raises:
        FewshotError: it cannot be read.
    """
    return set(_lines(path))


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise FewshotError(
            f"{path} cannot be read ({error}); it comes with VOC2012, or with the lists that"
            " `lists` names"
        ) from error


def _from_list(
    listed: Iterable[tuple[str, int]],
    values: Mapping[str, int],
    images: Path,
    masks: Path,
    image_size: int,
) -> SegmentationDataset:
    entries = sorted(set(listed))
    names = sorted({name for name, _ in entries})
    row = {name: place for place, name in enumerate(names)}
    pairs: list[Pair] = [(images / f"{name}.jpg", masks / f"{name}.png") for name in names]
    if missing := [path for pair in pairs for path in pair if not path.is_file()]:
        raise FewshotError(f"{missing[0]} is missing, which the lists name; {SOURCE}")
    members = [
        np.array([row[n] for n, v in entries if v == value], np.int64) for value in values.values()
    ]
    return SegmentationDataset(pairs, values, members, image_size)
