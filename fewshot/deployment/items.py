"""What a support and queries are given as, and what a predictor says of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

from torch import Tensor

from fewshot.episodes.types import Examples
from fewshot.extras import require
from fewshot.files.tables import printable

Items: TypeAlias = Tensor | dict[str, Tensor] | Sequence[Any]
"""Inputs as the network reads them, or what preprocessing makes them of: image files, texts."""
Support: TypeAlias = str | os.PathLike[str] | Mapping[str, Items] | Examples
Query: TypeAlias = str | os.PathLike[str] | Items

CHUNK = 64  # queries in memory at once
SHOWN = 20  # queries in a terminal or a notebook


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        """The first queries, a line each: the most probable class."""
        shown = [
            f"{number:>4}  {100 * confidence:5.1f} %  {printable(name)}"
            for number, (name, confidence) in enumerate(self._first())
        ]
        rest = len(self) - SHOWN
        more = [f"      and {rest} more"] if rest > 0 else []
        head = f"Predictions of {len(self)} queries, {len(self.classes)} classes"
        return "\n".join([head, *shown, *more])

    def _first(self) -> list[tuple[str, float]]:
        """The most probable class of the first queries and its probability."""
        first = Predictions(self.classes, self.probabilities[:SHOWN])
        return list(zip(first.names, first.confidences.tolist(), strict=True))

    def _repr_html_(self) -> str:
        """The table for a notebook: the first queries, the most probable class of each."""
        rows = "".join(
            f"<tr><td>{number}</td><td>{escape(name)}</td><td>{100 * confidence:.1f} %</td></tr>"
            for number, (name, confidence) in enumerate(self._first())
        )
        rest = len(self) - SHOWN
        more = f"<caption>{SHOWN} of {len(self)} queries</caption>" if rest > 0 else ""
        head = "<tr><th>query</th><th>class</th><th>probability</th></tr>"
        return f"<table>{more}{head}{rows}</table>"

    def to_pandas(self) -> Any:
        """A ``pandas.DataFrame``, a row a query.

        Its columns are those of ``predictions.csv``: class, probability, that of each class.

        Raises:
            FewshotError: pandas is not installed.
        """
        columns: dict[str, Any] = {"class": self.names, "probability": self.confidences.tolist()}
        for name, column in zip(self.classes, self.probabilities.T.tolist(), strict=True):
            columns[f"p({name})"] = column
        frame = require("pandas", "pandas").DataFrame(columns)
        return frame.rename_axis("query")


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
