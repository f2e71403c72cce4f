"""Where the images of Meta-Dataset's ten sources come from, and how each lies unpacked on disk.

Names of classes are those of the published specifications. Boxes, files that are left out and
folders are those of https://github.com/google-research/meta-dataset (dataset conversion).
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fewshot.datasets.omniglot import read_drawings
from fewshot.datasets.reading.decoding import Cropped, ImageSource
from fewshot.datasets.reading.folders import is_image
from fewshot.errors import FewshotError
from fewshot.extras import require

ClassImages: TypeAlias = Mapping[str, Sequence[ImageSource]]
"""The images of each class."""

COCO_SCALE = 1.2  # of a box's sides, so that the crop shows some of what is around


class Source(NamedTuple):
    """One of the ten sources.

    Args:
        folders: names that its folder may have below the root: Meta-Dataset's and that of its
            archive.
        files: what it must hold.
        origin: where it is from, and on what terms.
        read: finds the images of each class in the folder; decodes none.
    """

    folders: tuple[str, ...]
    files: str
    origin: str
    read: Callable[[Path], ClassImages]

    def folder(self, root: Path) -> Path | None:
        """Its folder: below `root`, or `root` itself where that has its name.

        None where there is none.
        """
        below = next((root / name for name in self.folders if (root / name).is_dir()), None)
        return root if below is None and root.name in self.folders and root.is_dir() else below


def image_files(folder: Path) -> list[Path]:
    """The image files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if is_image(path.name))


def read_folders(folder: Path) -> dict[str, Sequence[ImageSource]]:
    """``<class>/<image>``."""
    return {below.name: image_files(below) for below in sorted(folder.iterdir()) if below.is_dir()}


def read_ilsvrc_2012(folder: Path) -> ClassImages:
    """``<WordNet id>/*.JPEG``, without the images that stand in ``ImageNet_*_duplicates.txt``."""
    skipped: set[str] = set()
    for path in folder.glob("ImageNet_*_duplicates.txt"):
        lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
        skipped.update(Path(line).name for line in lines if line)
    class_images = read_folders(folder / "train" if (folder / "train").is_dir() else folder)
    return {
        name: [path for path in paths if isinstance(path, Path) and path.name not in skipped]
        for name, paths in class_images.items()
    }


def read_omniglot(folder: Path) -> ClassImages:
    """``images_background`` and ``images_evaluation``, folders or zip files.

    Classes are ``alphabet-character``.
    """
    classes: dict[str, list[ImageSource]] = defaultdict(list)
    for name, drawing in sorted(read_drawings(folder).items()):
        _, alphabet, character, _ = name.split("/")
        classes[f"{alphabet}-{character}"].append(drawing)
    return classes


def read_aircraft(folder: Path) -> ClassImages:
    """``data/images/*.jpg`` by ``images_variant_*.txt``, cut to the boxes in ``images_box.txt``."""
    data = folder / "data"
    boxes = {}
    for line in (data / "images_box.txt").read_text().splitlines():
        name, left, top, right, bottom = line.split()
        boxes[name] = int(left), int(top), int(right), int(bottom)
    classes: dict[str, list[ImageSource]] = defaultdict(list)
    lines = [
        line
        for part in ("trainval", "test")
        for line in _lines(data / f"images_variant_{part}.txt")
    ]
    for name, variant in sorted(line.split(" ", 1) for line in lines):
        classes[variant].append(Cropped(data / "images" / f"{name}.jpg", boxes[name]))
    return classes


def read_quickdraw(folder: Path) -> ClassImages:
    """``<class>.npy``: drawings of 28x28 (n, 784), mapped, not read."""
    return {path.stem: Drawings(path) for path in sorted(folder.glob("*.npy"))}


class Drawings(Sequence[NDArray[np.uint8]]):
    """The drawings of a file of QuickDraw, each (28, 28)."""

    def __init__(self, path: Path) -> None:
        self.path, self._mapped = path, np.load(path, mmap_mode="r")
        if self._mapped.dtype != np.uint8 or self._mapped.ndim != 2 or self._mapped.shape[1] != 784:
            raise ValueError(
                f"{path} holds {self._mapped.dtype} {self._mapped.shape}, expected uint8 (n, 784)"
            )

    # a spawned worker maps the file itself
    def __reduce__(self) -> tuple[type["Drawings"], tuple[Path]]:
        return Drawings, (self.path,)

    def __len__(self) -> int:
        return len(self._mapped)

    # no slices are asked for
    def __getitem__(self, index: int) -> NDArray[np.uint8]:  # type: ignore[override]
        return np.array(self._mapped[index]).reshape(28, 28)


def read_fungi(folder: Path) -> ClassImages:
    """The files that ``train.json`` and ``val.json`` name.

    Classes are ``0226.Cortinarius malicorius``, id and name.
    """
    classes: dict[str, list[ImageSource]] = defaultdict(list)
    for part in ("train", "val"):
        content = json.loads((folder / f"{part}.json").read_text())
        names = {c["id"]: f"{c['id']:04d}.{c['name']}" for c in content["categories"]}
        of = {
            annotation["image_id"]: annotation["category_id"]
            for annotation in content["annotations"]
        }
        for image in content["images"]:
            classes[names[of[image["id"]]]].append(folder / image["file_name"])
    return classes


def read_vgg_flower(folder: Path) -> ClassImages:
    """Of ``jpg/image_00001.jpg``, by ``imagelabels.mat``; classes are numbers such as ``090``."""
    labels = require("scipy", "vision").io.loadmat(str(folder / "imagelabels.mat"))["labels"][0]
    classes: dict[str, list[ImageSource]] = defaultdict(list)
    for number, label in enumerate(labels, start=1):
        classes[f"{label:03d}"].append(folder / "jpg" / f"image_{number:05d}.jpg")
    return classes


def read_traffic_sign(folder: Path) -> ClassImages:
    """``Final_Training/Images/00012/*.ppm``; classes are known by their number, ``12``."""
    return {
        f"{int(name):02d}": paths
        for name, paths in read_folders(folder / "Final_Training" / "Images").items()
    }


def read_mscoco(folder: Path) -> ClassImages:
    """``train2017/*.jpg``, cut to the boxes of ``instances_train2017.json``, each scaled by 1.2."""
    places = (
        folder / "instances_train2017.json",
        folder / "annotations" / "instances_train2017.json",
    )
    content = json.loads(next((path for path in places if path.is_file()), places[0]).read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    classes: dict[str, list[ImageSource]] = defaultdict(list)
    for annotation in content["annotations"]:
        box = scaled_box(annotation["bbox"], sizes[annotation["image_id"]])
        if box[0] < box[2] and box[1] < box[3]:
            path = folder / "train2017" / f"{annotation['image_id']:012d}.jpg"
            classes[names[annotation["category_id"]]].append(Cropped(path, box))
    return classes


def scaled_box(box: Sequence[float], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom in whole pixels of COCO's box, scaled about its centre.

    COCO's box is (left, top, width, height).
    """
    x, y, width, height = box
    left, top = x - width * (COCO_SCALE - 1) / 2, y - height * (COCO_SCALE - 1) / 2
    right, bottom = left + width * COCO_SCALE, top + height * COCO_SCALE
    # COCO's coordinates are of the pixels' centres
    return (
        max(round(left - 0.5), 0),
        max(round(top - 0.5), 0),
        min(round(right - 0.5) + 1, size[0]),
        min(round(bottom - 0.5) + 1, size[1]),
    )


def _lines(path: Path) -> Iterator[str]:
    return (line for line in path.read_text().splitlines() if line)


def spec_class(name: str, source: str) -> str:
    """What `read` calls a class of the specification: of two sources its number alone."""
    if source in ("vgg_flower", "traffic_sign"):
        match = re.match(r"\d+", name)
        return match.group() if match else name
    return name


def find_images(source: str, folder: Path) -> ClassImages:
    """The images of each class of a source in its folder.

    Raises:
        FewshotError: the folder does not hold what it should.
    """
    try:
        return SOURCES[source].read(folder)
    except FewshotError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FewshotError(
            f"{folder} does not hold {source} ({type(error).__name__}: {error}); expected"
            f" {SOURCES[source].files}, from {SOURCES[source].origin}"
        ) from error


SOURCES: dict[str, Source] = {
    "ilsvrc_2012": Source(
        ("ilsvrc_2012", "ILSVRC2012_img_train"),
        "<WordNet id>/*.JPEG of the 1000 classes, and Meta-Dataset's ImageNet_*_duplicates.txt",
        "https://image-net.org (non-commercial research)",
        read_ilsvrc_2012,
    ),
    "omniglot": Source(
        ("omniglot", "omniglot-py"),
        "images_background(.zip) and images_evaluation(.zip)",
        "https://github.com/brendenlake/omniglot (MIT)",
        read_omniglot,
    ),
    "aircraft": Source(
        ("aircraft", "fgvc-aircraft-2013b"),
        "data/images/*.jpg, data/images_box.txt, data/images_variant_trainval.txt and"
        " data/images_variant_test.txt",
        "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft (non-commercial research)",
        read_aircraft,
    ),
    "cu_birds": Source(
        ("cu_birds", "CUB_200_2011"),
        "images/001.Black_footed_Albatross/*.jpg, ...",
        "https://www.vision.caltech.edu/datasets/cub_200_2011 (non-commercial research)",
        lambda folder: read_folders(folder / "images"),
    ),
    "dtd": Source(
        ("dtd",),
        "images/<texture>/*.jpg",
        "https://www.robots.ox.ac.uk/~vgg/data/dtd (research)",
        lambda folder: read_folders(folder / "images"),
    ),
    "quickdraw": Source(
        ("quickdraw",),
        "<class>.npy, the numpy bitmaps of all 345 classes",
        "https://github.com/googlecreativelab/quickdraw-dataset (CC BY 4.0)",
        read_quickdraw,
    ),
    "fungi": Source(
        ("fungi", "fgvcx_fungi"),
        "train.json, val.json and the images that they name",
        "https://github.com/visipedia/fgvcx_fungi_comp (non-commercial research)",
        read_fungi,
    ),
    "vgg_flower": Source(
        ("vgg_flower", "flowers-102"),
        "jpg/image_*.jpg and imagelabels.mat",
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102 (no licence stated)",
        read_vgg_flower,
    ),
    "traffic_sign": Source(
        ("traffic_sign", "GTSRB"),
        "Final_Training/Images/00000/*.ppm, ...",
        "https://benchmark.ini.rub.de/gtsrb_dataset.html (see there)",
        read_traffic_sign,
    ),
    "mscoco": Source(
        ("mscoco", "coco"),
        "train2017/*.jpg and instances_train2017.json",
        "https://cocodataset.org (annotations CC BY 4.0, images on Flickr's terms)",
        read_mscoco,
    ),
}
"""The sources by the names of their specifications, in the order of the published tables."""
