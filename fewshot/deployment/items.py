"""What a support and queries are given as, and what a predictor says of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor

from fewshot.episodes.types import Examples

Items: TypeAlias = Tensor | dict[str, Tensor] | Sequence[Any]
"""Inputs as the network reads them, or what preprocessing makes them of: image files, texts."""
Support: TypeAlias = str | os.PathLike[str] | Mapping[str, Items] | Examples
Query: TypeAlias = str | os.PathLike[str] | Items

CHUNK = 64  # queries in memory at once


@dataclass(frozen=True)
class Predictions:
    """What a predictor says of n queries: the classes and the probability (n, N) of each."""

    classes: tuple[str, ...]
    probabilities: Tensor

    def __len__(self) -> int:
        """How many queries there are."""
        return len(self.probabilities)

    @property
    def names(self) -> list[str]:
        """The most probable class of each query."""
        return [self.classes[label] for label in self.probabilities.argmax(-1).tolist()]

    @property
    def confidences(self) -> Tensor:
        """The probability (n,) of the most probable class."""
        return self.probabilities.amax(-1)


def size_of(items: Items) -> int:
    """How many there are."""
    return len(next(iter(items.values()))) if isinstance(items, Mapping) else len(items)


def chunks(items: Items, size: int) -> Iterator[Items]:
    """The `size` items, `CHUNK` of them at once."""
    for start in range(0, size, CHUNK):
        rows = slice(start, start + CHUNK)
        yield (
            {name: values[rows] for name, values in items.items()}
            if isinstance(items, Mapping)
            else items[rows]
        )
