"""MNIST's 70 000 handwritten digits, read from its four idx files (LeCun, Cortes and Burges.

CC BY-SA 3.0).

What other benchmarks are composed from; as a few-shot benchmark its ten classes are too few.
"""

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import FewshotError

SIZE = 28
SHA256 = {  # of the unpacked files, so that re-packed ones are as good
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
PLACES = ("MNIST/raw", "mnist/MNIST/raw", "mnist", "raw", "")
REMEDY = "delete it and fetch it again with download: true"


class Digits(NamedTuple):
    """Images uint8 (n, 28, 28), ink bright, digit by digit, and each digit's count (10,)."""

    images: NDArray[np.uint8]
    counts: NDArray[np.int64]


def load_mnist(root: Path, download: bool = False, verify: bool = True) -> Digits:
    """Read the training and the test digits together, sorted by digit, then by file order.

    Args:
        root: holds the four idx files, packed (``.gz``) or not, itself or in ``MNIST/raw``
            (torchvision's place), ``mnist`` or ``mnist/MNIST/raw``.
        download: fetch what is missing into ``root/MNIST/raw``.
        verify: refuse other content than the original's. Without it any idx files of 28x28 images
            will do.

    Raises:
        FewshotError: a file is missing, damaged or, with `verify`, not MNIST's; or the download
            fails.
    """
    if download and any(_find(root, name) is None for name in SHA256):
        import torchvision  # here: it takes a second

        try:
            torchvision.datasets.MNIST(root, download=True)
        except (OSError, RuntimeError) as error:
            raise FewshotError(
                f"could not download MNIST ({error}); put its four files in {root} by hand"
            ) from error
    images, labels = [], []
    for part in ("train", "t10k"):
        images.append(_read(root, f"{part}-images-idx3-ubyte", (SIZE, SIZE), verify))
        labels.append(_read(root, f"{part}-labels-idx1-ubyte", (), verify))
        if len(images[-1]) != len(labels[-1]):
            raise FewshotError(
                f"{root}: MNIST's {part} files hold {len(images[-1])} images and {len(labels[-1])}"
                f" labels; {REMEDY}"
            )
    digit = np.concatenate(labels)
    counts = np.bincount(digit, minlength=10)
    if len(counts) > 10 or not counts.all():
        raise FewshotError(
            f"{root}: MNIST's labels are {np.unique(digit).tolist()}, not 0 to 9; {REMEDY}"
        )
    return Digits(np.concatenate(images)[digit.argsort(kind="stable")], counts)


def _find(root: Path, name: str) -> Path | None:
    places = (root / place / file for place in PLACES for file in (name, f"{name}.gz"))
    return next((path for path in places if path.is_file()), None)


def _read(root: Path, name: str, shape: tuple[int, ...], verify: bool) -> NDArray[np.uint8]:
    """The array (n, *shape) of an idx file: a big-endian header of sizes, then the bytes."""
    path = _find(root, name)
    if path is None:
        raise FewshotError(
            f"{root} does not hold MNIST: expected {name}, packed (.gz) or not, there or in"
            f" {root / PLACES[0]}; set download: true, or fetch MNIST's four idx files by hand"
            " (LeCun, Cortes and Burges, licence CC BY-SA 3.0)"
        )
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise FewshotError(f"{path} is truncated or corrupt ({error}); {REMEDY}") from error
    if verify and hashlib.sha256(content).hexdigest() != SHA256[name]:
        raise FewshotError(
            f"{path} is not MNIST's (its sha256 differs); {REMEDY}, or set verify: false"
        )
    sizes = np.frombuffer(content[4 : 8 + 4 * len(shape)], ">i4").tolist()
    start = 8 + 4 * len(shape)
    if content[:4] != bytes((0, 0, 8, 1 + len(shape))) or tuple(sizes[1:]) != shape:
        raise FewshotError(
            f"{path} is no idx file of bytes ({'n, 28, 28' if shape else 'n'}); {REMEDY}"
        )
    if len(content) != start + int(np.prod(sizes)):
        raise FewshotError(f"{path} is truncated or too long for its {sizes[0]} items; {REMEDY}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)
