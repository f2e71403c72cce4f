"""What every source of labelled examples is read into."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.episodes import Inputs


@dataclass(frozen=True)
class ClassDataset:
    """Labelled examples in memory, the examples of each class side by side.

    Class ``c`` owns the rows ``starts[c] : starts[c] + counts[c]`` of every input tensor, so that an episode is
    index arithmetic and one gather.

    Args:
        inputs: one tensor (n, ...) or a dict of tensors (n, ...); images are uint8 (n, C, H, W).
        counts: examples of each class, int64, shape (classes,).
        classes: the classes' names, unique, in the order of the rows.
    """

    inputs: Inputs
    counts: NDArray[np.int64]
    classes: tuple[str, ...]

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first row of each class, shape (classes,)."""
        return np.concatenate([[0], np.cumsum(self.counts)[:-1]]).astype(np.int64)

    def select(self, classes: Sequence[int]) -> "ClassDataset":
        """The dataset of these classes alone, in this order."""
        starts = self.starts
        rows = torch.from_numpy(
            np.concatenate([np.arange(starts[c], starts[c] + self.counts[c]) for c in classes])
            if len(classes)
            else np.empty(0, np.int64)
        )
        inputs = (
            {name: value[rows] for name, value in self.inputs.items()}
            if isinstance(self.inputs, dict)
            else self.inputs[rows]
        )
        return ClassDataset(inputs, self.counts[list(classes)], tuple(self.classes[c] for c in classes))
