"""mini-ImageNet: 100 classes of 600 images of ImageNet, 84x84 (Vinyals et al., arXiv:1606.04080).

The split is Ravi and Larochelle's (2017), which all results since are reported on. Its files are in
use in four forms.
"""

import csv
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.datasets.imagenet_classes import MINI, classes
from fewshot.datasets.reading.decoding import ImageSource
from fewshot.datasets.reading.pickles import load_pickle
from fewshot.datasets.reading.published import (
    SPLITS,
    Reader,
    check_classes,
    load_splits,
    read_class_folders,
)
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

IMAGES = 600  # a class
PLACES = ("mini_imagenet", "mini-imagenet", "miniImageNet", "miniImagenet", "miniimagenet")
FORMS = {
    "csv": {**{split: f"{split}.csv" for split in SPLITS}, "images": "images"},
    "cache_pkl": {split: f"mini-imagenet-cache-{split}.pkl" for split in SPLITS},
    "category_pickle": {
        split: f"miniImageNet_category_split_{phase}.pickle"
        for split, phase in zip(SPLITS, ("train_phase_train", "val", "test"), strict=True)
    },
    "folders": {split: split for split in SPLITS},
}

ABSENT = (
    "does not hold mini-ImageNet: expected images/ and train.csv, val.csv, test.csv;"
    " mini-imagenet-cache-train.pkl (val, test);"
    " miniImageNet_category_split_train_phase_train.pickle (val, test); or train/, val/, test/ with"
    " a folder a class. The images are ImageNet's (image-net.org: non-commercial research and"
    " education only), the lists those of github.com/twitter/meta-learning-lstm"
)


def load_mini_imagenet(
    root: Path, cache: Path, image_size: int = 84, verify: bool = True, verify_store: bool = False
) -> tuple[str, dict[str, ClassDataset]]:
    """The form that the files have, and train, val and test.

    Args:
        root: holds one of the forms, itself or in ``mini_imagenet/`` (or ``mini-imagenet``,
            ``miniImageNet``, ...): ``images/`` beside ``{train,val,test}.csv``;
            ``mini-imagenet-cache-{train,val,test}.pkl``;
            ``miniImageNet_category_split_{train_phase_train,val,test}.pickle``; or
            ``{train,val,test}/<wnid>/*.jpg``.
        cache: folder of the packed store.
        image_size: side in pixels.
        verify: each class must have its 600 images.
        verify_store: check the whole store.

    Raises:
        FewshotError: nothing is found, or what is found is damaged or lacks a class.
    """
    check = partial(_check, verify=verify)
    return load_splits(root, cache, image_size, verify_store, PLACES, FORMS, READERS, check, ABSENT)


def _check(where: str, found: Mapping[str, Mapping[str, int]], verify: bool) -> None:
    check_classes(where, found, classes(MINI), r"n\d{8}")
    for split, counts in found.items() if verify else ():
        for name, count in counts.items():
            if count != IMAGES:
                raise FewshotError(
                    f"{where}: the {split} class {name!r} has {count} images, mini-ImageNet's have"
                    f" {IMAGES}; complete it, or set verify: false"
                )


def _read_csv(paths: Mapping[str, Path], split: str) -> dict[str, list[ImageSource]]:
    images: dict[str, list[ImageSource]] = {}
    try:
        with paths[split].open(newline="") as file:
            for row in csv.DictReader(file):
                images.setdefault(row["label"], []).append(paths["images"] / row["filename"])
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise FewshotError(
            f"{paths[split]} is no table of filename,label ({error!r}); replace it"
        ) from error
    return dict(sorted(images.items()))


def _read_cache(paths: Mapping[str, Path], split: str) -> dict[str, list[ImageSource]]:
    content = load_pickle(paths[split])
    try:
        images = _checked(content["image_data"])
        return {
            str(name): [images[i] for i in rows]
            for name, rows in sorted(content["class_dict"].items())
        }
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise _other(paths[split], "image_data and class_dict", error) from error


def _read_categories(paths: Mapping[str, Path], split: str) -> dict[str, list[ImageSource]]:
    content = load_pickle(paths[split])
    try:
        images, labels = _checked(content["data"]), np.asarray(content["labels"], np.int64)
        if len(images) != len(labels):
            raise ValueError(f"{len(images)} images, {len(labels)} labels")
        # numbers, as the files know no names: the classes of a split are told apart by its name
        return {
            f"{split}{label:03d}": [images[i] for i in np.flatnonzero(labels == label)]
            for label in np.unique(labels)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _other(paths[split], "data and labels", error) from error


def _checked(images: Any) -> np.ndarray:
    if (
        not isinstance(images, np.ndarray)
        or images.dtype != np.uint8
        or images.ndim != 4
        or images.shape[3] != 3
    ):
        raise ValueError(
            f"its images are {getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}"
        )
    return images


def _other(path: Path, keys: str, error: Exception) -> FewshotError:
    return FewshotError(
        f"{path} does not hold {keys} as mini-ImageNet's pickles do ({error!r}); replace it"
    )


READERS: dict[str, Reader] = {
    "csv": _read_csv,
    "cache_pkl": _read_cache,
    "category_pickle": _read_categories,
    "folders": read_class_folders,
}
