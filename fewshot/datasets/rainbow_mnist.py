"""RainbowMNIST: 56 tasks, each MNIST in a colour, a size and a turn of its own; composed on demand.

arXiv:1902.08438. A digit is white on a background of one of 7 colours, of full or of half size,
turned by 0, 90, 180 or 270 degrees. As in the published file a task has 100 drawings of each digit
and shares none with another task. Which drawings, and which tasks train, is drawn anew here.
"""

from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fewshot.datasets.mnist import SIZE, Digits, load_mnist
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs

COLOURS = {
    "red": (255, 0, 0),
    "orange": (255, 128, 0),
    "yellow": (255, 255, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "indigo": (75, 0, 130),
    "violet": (238, 130, 238),
}
"""Of the background, RGB."""
TASKS = tuple(product(COLOURS, ("full", "half"), (0, 90, 180, 270)))
"""The 56 tasks: colour, size, degrees counter-clockwise."""
PARTS = {"train": 40, "val": 6, "test": 10}
DIGITS = 10
DRAWINGS = 100
"""Of each digit in each task, at most."""


def split_tasks(seed: int, train_tasks: int = 40) -> dict[str, list[int]]:
    """The places among `TASKS` of train, val and test: 40, 6 and 10, shuffled by the seed.

    Fewer training tasks are the first of the 40; the others do not depend on it.
    """
    order = np.random.default_rng(seed).permutation(len(TASKS)).tolist()
    ends = np.cumsum(list(PARTS.values())).tolist()
    parts = {
        part: order[start:end] for part, start, end in zip(PARTS, [0, *ends], ends, strict=False)
    }
    return {**parts, "train": parts["train"][:train_tasks]}


class RainbowImages(LazyInputs):
    """Images uint8 (3, 28, 28): drawings of MNIST as their tasks show them.

    Args:
        drawings: all of MNIST's, uint8 (n, 28, 28).
        which: the drawing that each row shows, (rows,).
        tasks: the place among `TASKS` of each row's task, (rows,).
    """

    def __init__(
        self,
        drawings: NDArray[np.uint8],
        which: NDArray[np.int64],
        tasks: NDArray[np.int64],
    ) -> None:
        self.drawings, self.which, self.tasks = drawings, which, tasks

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.which)

    def select(self, rows: NDArray[np.int64]) -> Self:
        """These images alone."""
        return type(self)(self.drawings, self.which[rows], self.tasks[rows])

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """Compose the images (n, 3, 28, 28)."""
        images = np.empty((len(rows), 3, SIZE, SIZE), np.uint8)
        for task in np.unique(self.tasks[rows]):
            mine = self.tasks[rows] == task
            images[mine] = shown(self.drawings[self.which[rows[mine]]], task)
        return torch.from_numpy(images)


def shown(drawings: NDArray[np.uint8], task: int) -> NDArray[np.uint8]:
    """Drawings (n, 28, 28) as a task shows them, (n, 3, 28, 28)."""
    colour, size, degrees = TASKS[task]
    ink = drawings.astype(np.float32) / 255
    if size == "half":  # means of 2x2 pixels, in the middle
        half = ink.reshape(-1, SIZE // 2, 2, SIZE // 2, 2).mean((2, 4))
        ink = np.pad(half, ((0, 0), (SIZE // 4, SIZE // 4), (SIZE // 4, SIZE // 4)))
    ink = np.rot90(ink, degrees // 90, (1, 2))[:, None]
    background = np.array(COLOURS[colour], np.float32)[:, None, None]
    return (255 * ink + background * (1 - ink)).round().astype(np.uint8)


def load_rainbow_mnist(
    root: Path,
    split_seed: int = 0,
    train_tasks: int = 40,
    download: bool = False,
    verify: bool = True,
) -> dict[str, ClassDataset]:
    """The splits ``train``, ``val`` and ``test``: ten classes a task, side by side, digit by digit.

    Args:
        root: holds MNIST; see `fewshot.datasets.mnist.load_mnist`, as for `download` and `verify`.
        split_seed: which tasks train, validate and test.
        train_tasks: how many train, up to 40.
        download: fetch MNIST.
        verify: accept the original MNIST only.

    Raises:
        FewshotError: MNIST is missing or damaged.
    """
    mnist = load_mnist(root, download, verify)
    return {
        part: _classes(mnist, tasks) for part, tasks in split_tasks(split_seed, train_tasks).items()
    }


def _classes(mnist: Digits, tasks: list[int]) -> ClassDataset:
    """The ten digits of each of these tasks; a digit's drawings are dealt round to all tasks."""
    starts = np.cumsum(mnist.counts) - mnist.counts
    dealt = [
        starts[digit] + np.arange(task, mnist.counts[digit], len(TASKS))[:DRAWINGS]
        for task in tasks
        for digit in range(DIGITS)
    ]
    counts = np.array([len(which) for which in dealt], np.int64)
    names = [f"{colour} {size} {degrees}" for colour, size, degrees in (TASKS[t] for t in tasks)]
    return ClassDataset(
        RainbowImages(
            mnist.images, np.concatenate(dealt), np.repeat(np.repeat(tasks, DIGITS), counts)
        ),
        counts,
        tuple(f"{name}: {digit}" for name in names for digit in range(DIGITS)),
    )
