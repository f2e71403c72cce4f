"""tiered-ImageNet: 608 ImageNet classes, split by superclass, 84x84 (arXiv:1803.00676).

Its files are in use in three forms: ``{train,val,test}_images_png.pkl`` or ``_images.npz``, each
with ``{train,val,test}_labels.pkl``; or ``{train,val,test}/<wnid>/*.jpg``.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fewshot.datasets.imagenet_classes import TIERED, classes
from fewshot.datasets.reading.decoding import Encoded, ImageSource
from fewshot.datasets.reading.npz import npz_member
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

IMAGES = {"train": 448_695, "val": 124_261, "test": 206_209}
PLACES = ("tiered_imagenet", "tiered-imagenet", "tieredImageNet", "tieredimagenet")
LABELS = {f"{split}_labels": f"{split}_labels.pkl" for split in SPLITS}
FORMS = {
    "png_pkl": {**{split: f"{split}_images_png.pkl" for split in SPLITS}, **LABELS},
    "npz": {**{split: f"{split}_images.npz" for split in SPLITS}, **LABELS},
    "folders": {split: split for split in SPLITS},
}

ABSENT = (
    "does not hold tiered-ImageNet: expected train_images_png.pkl or train_images.npz, with"
    " train_labels.pkl (val, test); or train/, val/, test/ with a folder a class. It comes from"
    " github.com/renmengye/few-shot-ssl-public; the images are ImageNet's (image-net.org:"
    " non-commercial research and education only)"
)


def _check_numbers(where: str, numbers: Numbers) -> None:
    for split, expected in IMAGES.items():
        if (count := sum(numbers[split].values())) != expected:
            raise FewshotError(
                f"{where}: the {split} split has {count} images, tiered-ImageNet's has {expected};"
                " complete it, or set verify: false"
            )


def _read_png(paths: Mapping[str, Path], split: str) -> dict[str, list[ImageSource]]:
    content = load_pickle(paths[split])
    if not isinstance(content, list | np.ndarray):
        raise FewshotError(f"{paths[split]} holds no list of PNG images; replace it")
    # the files were written by OpenCV from its own order of channels, so that they are in the order
    # of PNG
    images = [
        Encoded(np.asarray(item).tobytes(), f"{paths[split]}[{i}]")
        for i, item in enumerate(content)
    ]
    return _by_class(paths[f"{split}_labels"], images, split)


def _read_npz(paths: Mapping[str, Path], split: str) -> dict[str, list[ImageSource]]:
    images = npz_member(paths[split], "images")
    if not is_rgb(images):
        raise FewshotError(
            f"{paths[split]}: its images are {images.dtype} {images.shape}; replace it"
        )
    # OpenCV's order of channels, blue first
    return _by_class(paths[f"{split}_labels"], [image[..., ::-1] for image in images], split)


def _by_class(
    path: Path, images: Sequence[ImageSource], split: str
) -> dict[str, list[ImageSource]]:
    """The images of each class, which the label file knows by number."""
    content: Any = load_pickle(path)
    try:
        labels = np.asarray(
            content["label_specific"] if "label_specific" in content else content["labels"],
            np.int64,
        )
        if labels.shape != (len(images),):
            raise ValueError(f"{labels.shape} labels of {len(images)} images")
    except (KeyError, TypeError, ValueError) as error:
        raise FewshotError(
            f"{path} holds no label_specific for each image ({error!r}); replace it"
        ) from error
    return by_number(images, labels, split)


TIERED_IMAGENET = PublishedSplits(
    places=PLACES,
    forms=FORMS,
    readers={"png_pkl": _read_png, "npz": _read_npz, "folders": read_class_folders},
    classes=classes(TIERED),
    named=r"n\d{8}",
    check_numbers=_check_numbers,
    absent=ABSENT,
)
