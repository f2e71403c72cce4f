"""What every source of labelled examples is read into."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fewshot.episodes.types import Inputs


class LazyInputs(ABC):
    """Inputs that are read or made when they are asked for, addressed by row."""

    @abstractmethod
    def __len__(self) -> int:
        """How many rows there are."""

    @abstractmethod
    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """The inputs (n, ...) at these rows (n,), in this order.

        Each a function of its row alone.
        """

    @abstractmethod
    def select(self, rows: NDArray[np.int64]) -> Self:
        """These rows alone, in this order; nothing is read."""


@dataclass(frozen=True)
class ClassDataset:
    """Labelled examples, the examples of each class side by side.

    Class ``c`` owns the rows ``starts[c] : starts[c] + counts[c]`` of every input tensor, so that
    an episode is index arithmetic and one gather.

    Args:
        inputs: one tensor (n, ...) or a dict of tensors (n, ...), in memory, or made on demand;
            images are uint8 (n, C, H, W).
        counts: examples of each class, int64, shape (classes,).
        classes: the classes' names, unique, in the order of the rows.
    """

    inputs: Inputs | LazyInputs
    counts: NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each class, shape (classes,)."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    def select(self, classes: Sequence[int]) -> "ClassDataset":
        """The dataset of these classes alone, in this order."""
        starts = self.starts
        rows = np.concatenate(
            [
                np.empty(0, np.int64),
                *(np.arange(starts[c], starts[c] + self.counts[c]) for c in classes),
            ]
        )
        inputs: Inputs | LazyInputs
        if isinstance(self.inputs, LazyInputs):
            inputs = self.inputs.select(rows)
        elif isinstance(self.inputs, dict):
            inputs = {name: value[torch.from_numpy(rows)] for name, value in self.inputs.items()}
        else:
            inputs = self.inputs[torch.from_numpy(rows)]
        return ClassDataset(
            inputs, self.counts[list(classes)], tuple(self.classes[c] for c in classes)
        )
