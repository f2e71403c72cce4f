"""Meta-Dataset: ten image sources, drawn as episodes of any way and shot (arXiv:1903.03096)."""

import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fewshot.datasets.meta_dataset_sources import SOURCES, ClassImages, find_images, spec_class
from fewshot.datasets.meta_dataset_specs import Spec, read_spec
from fewshot.datasets.omniglot import DRAWINGS, HALVES, split_characters
from fewshot.datasets.reading.decoding import Channels, Cropped, Encoded, ImageSource, read_image
from fewshot.datasets.reading.fingerprints import fingerprint_of
from fewshot.datasets.reading.store import packed
from fewshot.episodes.broad_sampling import Groups, check_groups, draw_broad_episode
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.episodes.distributions import VaryingTasks
from fewshot.errors import FewshotError, nearest

UNPACKED = ("quickdraw",)
"""Sources whose files are arrays already, which would be a terabyte at 84x84."""
TRAINED = (
    "ilsvrc_2012",
    "omniglot",
    "aircraft",
    "cu_birds",
    "dtd",
    "quickdraw",
    "fungi",
    "vgg_flower",
)
"""Sources with training classes."""


class SourceSplit(NamedTuple):
    """A split of a source: its images by class, and which classes make an episode together."""

    dataset: ClassDataset
    groups: Groups

    def tasks(self) -> VaryingTasks:
        """The episodes of Meta-Dataset on this split."""
        return VaryingTasks(
            self.dataset,
            partial(
                draw_broad_episode,
                starts=self.dataset.starts,
                counts=self.dataset.counts,
                groups=self.groups,
            ),
        )


class DecodedImages(LazyInputs):
    """Images uint8 (C, size, size), decoded from their files when they are asked for.

    Args:
        classes: the images of each class; row numbers run through them.
        image_size: H = W.
        channels: C.
        rows: which of the images these are; None means all.
    """

    def __init__(
        self,
        classes: Sequence[Sequence[ImageSource]],
        image_size: int,
        channels: Channels,
        rows: NDArray[np.int64] | None = None,
    ) -> None:
        self.classes, self.image_size, self.channels, self.rows = (
            classes,
            image_size,
            channels,
            rows,
        )
        self.ends = np.cumsum([len(images) for images in classes])

    def __len__(self) -> int:
        """How many images there are."""
        return int(self.ends[-1]) if self.rows is None else len(self.rows)

    def select(self, rows: NDArray[np.int64]) -> Self:
        """These images alone."""
        chosen = rows if self.rows is None else self.rows[rows]
        return type(self)(self.classes, self.image_size, self.channels, chosen)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """The images (n, C, size, size)."""
        places = rows if self.rows is None else self.rows[rows]
        owners = np.searchsorted(self.ends, places, side="right")
        # from the end
        images = [self.classes[c][i - self.ends[c]] for c, i in zip(owners, places, strict=True)]
        with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
            decoded = list(
                pool.map(lambda image: read_image(image, self.image_size, self.channels), images)
            )
        return torch.from_numpy(np.stack(decoded))


def found_sources(root: Path, names: Sequence[str] | None = None) -> dict[str, Path]:
    """The folders of the sources `names` below `root`; of all that are there, where None are named.

    Raises:
        FewshotError: a source is unknown or has no folder, or there is none at all.
    """
    for name in names or ():
        if name not in SOURCES:
            raise FewshotError(f"Meta-Dataset has no source {name!r}{nearest(name, SOURCES)}")
    folders = {name: SOURCES[name].folder(root) for name in names or SOURCES}
    sources = {name: folder for name, folder in folders.items() if folder is not None}
    if missing := [name for name in names or (() if sources else SOURCES) if name not in sources]:
        expected = "; ".join(
            f"{root / name}: {SOURCES[name].files}, from {SOURCES[name].origin}" for name in missing
        )
        absent = " and no ".join(missing) if names else "source of Meta-Dataset"
        raise FewshotError(f"{root} holds no {absent}; expected {expected}")
    return sources


def load_source(
    name: str,
    folder: Path,
    specs: Path,
    store: Path | None,
    image_size: int = 84,
    channels: Channels = 3,
    verify: bool = True,
    mend: bool = False,
) -> dict[str, SourceSplit]:
    """The splits of a source that have classes.

    Args:
        name: as in `SOURCES`.
        folder: holds the source, as it is unpacked.
        specs: folder of the published specifications.
        store: folder of packed stores, to which the resized images are written once; None decodes
            them when they are asked for. QuickDraw is never packed.
        image_size: H = W in pixels.
        channels: 3 for RGB, 1 for grey.
        verify: accept the published number of images of each class alone.
        mend: check every packed image, and pack again what is corrupt.

    Raises:
        FewshotError: files are missing, a class of the specification has no images, or another
            number of them.
    """
    class_images = find_images(name, folder)
    spec = (
        omniglot_spec(list(class_images))
        if name == "omniglot"
        else read_spec(specs / f"{name}_dataset_spec.json")
    )
    images = _checked(name, folder, spec, class_images, verify)
    for split, groups in spec.groups.items():
        check_groups(f"the {split} split of {name}", groups)
    if store is None or name in UNPACKED:
        datasets = {
            split: ClassDataset(
                DecodedImages(list(classes.values()), image_size, channels),
                np.array([len(of) for of in classes.values()], np.int64),
                tuple(classes),
            )
            for split, classes in images.items()
        }
    else:
        place = store / f"{name}_{channels}x{image_size}x{image_size}"
        datasets = packed(
            place, _fingerprint(folder, images), lambda: images, image_size, channels, mend
        )
    return {split: SourceSplit(datasets[split], groups) for split, groups in spec.groups.items()}


def omniglot_spec(characters: Sequence[str]) -> Spec:
    """Omniglot's specification, which is a rule: by alphabet.

    Args:
        characters: ``alphabet-character`` of the background half, then of the evaluation half.
    """
    background = HALVES["images_background"][1]
    halves = [
        "background" if place < background else "evaluation" for place in range(len(characters))
    ]
    folders = [name.replace("-character", "/character") for name in characters]
    paths = [f"images_{half}/{folder}" for half, folder in zip(halves, folders, strict=True)]
    images: dict[str, dict[str, int]] = {}
    groups: dict[str, Groups] = {}
    for split, members in split_characters(paths, "meta_dataset").items():
        names = [characters[member] for member in members]
        images[split] = dict.fromkeys(names, DRAWINGS)
        alphabets = np.array([name.rpartition("-")[0] for name in names])
        groups[split] = Groups(
            [np.flatnonzero(alphabets == alphabet) for alphabet in np.unique(alphabets)]
        )
    return Spec(images, groups)


def _checked(
    name: str, folder: Path, spec: Spec, class_images: ClassImages, verify: bool
) -> dict[str, ClassImages]:
    """The images found of the specification's classes, by split."""
    splits: dict[str, dict[str, Sequence[ImageSource]]] = {split: {} for split in spec.groups}
    for split in splits:
        for label, number in spec.images[split].items():
            images = class_images.get(spec_class(label, name), ())
            if len(images) < 2 or (verify and len(images) != number):
                raise FewshotError(
                    f"{folder} has {len(images)} images of the class {label!r}, which its"
                    f" specification gives {number}; expected {SOURCES[name].files}, from"
                    f" {SOURCES[name].origin}"
                    + ("" if len(images) < 2 else "; verify: false accepts other numbers")
                )
            splits[split][label] = images
    return dict(splits)


def _fingerprint(folder: Path, images: Mapping[str, ClassImages]) -> str:
    """A digest of the classes and of their images: the boxes, the files and when they changed."""
    files: list[Path] = []
    made_of: list[object] = []
    for split, classes in images.items():
        for label, of in classes.items():
            made_of.append((split, label, len(of)))
            for image in of:
                if isinstance(image, Encoded):  # read already
                    made_of.append(zlib.crc32(image.content))
                elif isinstance(image, Cropped):
                    made_of.append(image.box)
                    files.append(image.path)
                elif isinstance(image, Path):
                    files.append(image)
    return fingerprint_of(dict.fromkeys(files), folder, *made_of)
