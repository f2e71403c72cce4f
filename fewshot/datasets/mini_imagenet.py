"""mini-ImageNet: 100 classes of 600 images of ImageNet, 84x84 (Vinyals et al., arXiv:1606.04080).

The split is Ravi and Larochelle's (2017), which all results since are reported on. Its files are in
use in four forms: ``images/`` beside ``{train,val,test}.csv``;
``mini-imagenet-cache-{train,val,test}.pkl``;
``miniImageNet_category_split_{train_phase_train,val,test}.pickle``; or
``{train,val,test}/<wnid>/*.jpg``.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fewshot.datasets.imagenet_classes import MINI, classes
from fewshot.datasets.reading.decoding import ImageSource
from fewshot.datasets.reading.pickles import load_pickle
from fewshot.datasets.reading.published import Numbers
from fewshot.datasets.reading.published_splits import (
    SPLITS,
    PublishedSplits,
    by_number,
    is_rgb,
    read_class_folders,
)
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


def _check_numbers(where: str, numbers: Numbers) -> None:
    for split, counts in numbers.items():
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
        return by_number(images, labels, split)
    except (KeyError, TypeError, ValueError) as error:
        raise _other(paths[split], "data and labels", error) from error


def _checked(images: Any) -> NDArray[np.uint8]:
    if not is_rgb(images):
        raise ValueError(
            f"its images are {getattr(images, 'dtype', type(images).__name__)} {np.shape(images)}"
        )
    checked: NDArray[np.uint8] = images
    return checked


def _other(path: Path, keys: str, error: Exception) -> FewshotError:
    return FewshotError(
        f"{path} does not hold {keys} as mini-ImageNet's pickles do ({error!r}); replace it"
    )


MINI_IMAGENET = PublishedSplits(
    places=PLACES,
    forms=FORMS,
    readers={
        "csv": _read_csv,
        "cache_pkl": _read_cache,
        "category_pickle": _read_categories,
        "folders": read_class_folders,
    },
    classes=classes(MINI),
    named=r"n\d{8}",
    check_numbers=_check_numbers,
    absent=ABSENT,
)
