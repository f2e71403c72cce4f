"""A matrix of what each class was taken for."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fewshot.tasks.drawing.style import INK

WRITTEN = 15  # classes up to which the shares stand in the cells
LONGEST = 24  # characters of a name


def draw_confusion(names: Sequence[str], shares: NDArray[np.float64], classes: int) -> Figure:
    """Rows are the queries' classes, columns what they were taken for.

    Args:
        names: of the classes drawn.
        shares: of each class's queries, (classes drawn, classes drawn).
        classes: how many classes there are.
    """
    number = len(names)
    some = "" if number == classes else f"; {number} of {classes} classes, those told least"
    title = f"taken for (across), % of a class's queries (down){some}"
    short = [cut(name, LONGEST) for name in names]
    written = number <= WRITTEN
    # turned names take long to draw: of many classes the columns have numbers
    rows = short if written else [f"{name}  {i}" for i, name in enumerate(short, start=1)]
    columns = short if written else [str(i) for i in range(1, number + 1)]
    cell, size = (0.35, 8) if written else (0.2, 6)
    left = 0.2 + 0.075 * max(map(len, rows))
    below = 0.2 + 0.075 * (max(map(len, columns)) if written else 1)
    side = cell * number
    width, height = max(left + side + 0.2, 0.2 + 0.065 * len(title)), side + below + 0.4
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((left / width, below / height, side / width, side / height))
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axis.set(xticks=[], yticks=[])  # texts take a tenth of the time of ticks
    for place, (row, column) in enumerate(zip(rows, columns, strict=True)):
        axis.text(-0.7, place, row, ha="right", va="center", fontsize=size, color=INK)
        axis.text(
            *(place, number - 0.3, column),
            ha="center",
            va="top",
            fontsize=size,
            color=INK,
            rotation=90 if written else 0,
        )
    for row, column in zip(*np.nonzero(shares), strict=True) if written else ():
        share = shares[row, column]
        colour = "white" if share > 0.5 else INK
        told = f"{100 * share:.0f}"
        axis.text(column, row, told, ha="center", va="center", fontsize=size, color=colour)
    figure.text(0.1 / width, 1 - 0.2 / height, title, fontsize=size, color=INK, va="center")
    return figure


def cut(name: str, longest: int) -> str:
    """What of a name has room, so many characters: of a path the end, of a word the beginning."""
    if len(name) > longest:
        name = name.rpartition("/")[2] or name
    return name if len(name) <= longest else f"{name[: longest - 1]}\N{HORIZONTAL ELLIPSIS}"
