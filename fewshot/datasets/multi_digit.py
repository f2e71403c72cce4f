"""Double and Triple MNIST: numbers of two or three digits, composed from MNIST on request.

https://github.com/shaohua0116/MultiDigitMNIST. Its program writes a million image files; here an
image is a function of its class and its number in the class, so that nothing but MNIST is stored.
The rules are the program's: digit i of n stands in the i-th of n columns, at a random place of it.
The random numbers are not, so the images are other ones.
"""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fewshot.datasets.mnist import SIZE, Digits, load_mnist
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.errors import FewshotError

SHARES = {"train": 64, "val": 16, "test": 20}  # per cent of the classes
SPLIT_SEED = 123


def split_numbers(digits: int) -> dict[str, list[int]]:
    """The classes of train, val and test, each sorted: 64, 16 and 20 per cent of the numbers.

    The numbers have `digits` digits.

    The published lists are this shuffle of the program's.
    """
    order = list(range(10**digits))
    # the legacy generator on purpose: its stream is what the lists were made with
    np.random.RandomState(SPLIT_SEED).shuffle(order)
    ends = np.cumsum([len(order) * share // 100 for share in SHARES.values()])
    return {
        part: sorted(order[start:end])
        for part, start, end in zip(SHARES, [0, *ends[:-1]], ends.tolist(), strict=True)
    }


class Compositions(LazyInputs):
    """Images uint8 (1, size, size) of numbers, each a function of its class and number alone.

    Args:
        mnist: the digits to compose from.
        digits: n, the digits of a number.
        size: H = W, at least n * 28.
        classes: the number that each row shows, (rows,).
        numbers: which image of its class each row is, (rows,).
    """

    def __init__(
        self,
        mnist: Digits,
        digits: int,
        size: int,
        classes: NDArray[np.int64],
        numbers: NDArray[np.int64],
    ) -> None:
        self.mnist, self.digits, self.size = mnist, digits, size
        self.classes, self.numbers = classes, numbers
        self.starts = np.cumsum(mnist.counts) - mnist.counts

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.classes)

    def select(self, rows: NDArray[np.int64]) -> Self:
        """These images alone."""
        return type(self)(
            self.mnist, self.digits, self.size, self.classes[rows], self.numbers[rows]
        )

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Compose the images (n, 1, size, size)."""
        classes, numbers = self.classes[rows, None], self.numbers[rows, None]
        place = np.arange(self.digits)
        # (rows, digits), the first digit first
        shown = classes // 10 ** (self.digits - 1 - place) % 10
        slot = self.size // self.digits
        # Three random numbers for each digit of each image; (classes, numbers, digits) are its
        # address.
        address = ((classes * 2**32 + numbers) * 4 + place) * 4 + 2**60 * self.digits
        which = self.starts[shown] + random_below(address, self.mnist.counts[shown])
        top = random_below(address + 1, self.size - SIZE)
        # the program's range, which leaves out the last place; a slot of 28 pixels has one place
        left = place * self.size // self.digits + random_below(address + 2, max(slot - SIZE, 1))
        canvas = np.zeros(len(rows) * self.size**2, np.uint8)
        corners = (np.arange(len(rows))[:, None] * self.size + top) * self.size + left
        # where each line of 28 pixels begins
        lines = corners[..., None] + self.size * np.arange(SIZE)
        np.lib.stride_tricks.sliding_window_view(canvas, SIZE, writeable=True)[lines] = (
            self.mnist.images[which]
        )
        return torch.from_numpy(canvas).view(len(rows), 1, self.size, self.size)


def random_below(address: NDArray[np.int64], bounds: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Uniform integers in [0, bounds), a function of the address alone.

    The mixing is SplitMix64's (Steele et al., 2014).
    """
    mixed = address.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    high = (mixed ^ (mixed >> np.uint64(31))) >> np.uint64(32)
    return ((high * np.asarray(bounds, np.uint64)) >> np.uint64(32)).astype(np.int64)


def load_multi_digit(
    root: Path,
    digits: int,
    size: int,
    images_per_class: int = 1000,
    download: bool = False,
    verify: bool = True,
) -> dict[str, ClassDataset]:
    """The splits ``train``, ``val`` and ``test`` of the numbers of so many digits.

    Args:
        root: holds MNIST; see `fewshot.datasets.mnist.load_mnist`, as for `download` and `verify`.
        digits: 2 or 3.
        size: side of the images in pixels.
        images_per_class: how many images a number has.
        download: fetch MNIST.
        verify: accept the original MNIST only.

    Raises:
        FewshotError: MNIST is missing or damaged, or an argument is out of range.
    """
    if not 1 <= images_per_class <= 2**20:
        raise FewshotError(f"images_per_class is {images_per_class}; set it to 1 ... {2**20}")
    if size < digits * SIZE:
        raise FewshotError(
            f"{digits} digits of {SIZE} pixels do not fit size {size}; set it >= {digits * SIZE}"
        )
    mnist = load_mnist(root, download, verify)
    return {
        part: ClassDataset(
            Compositions(
                mnist,
                digits,
                size,
                np.repeat(np.array(classes, np.int64), images_per_class),
                np.tile(np.arange(images_per_class), len(classes)),
            ),
            np.full(len(classes), images_per_class, np.int64),
            tuple(f"{number:0{digits}d}" for number in classes),
        )
        for part, classes in split_numbers(digits).items()
    }
