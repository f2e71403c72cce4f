"""Pictures of an episode of images: what is right is green, what is wrong is red."""

from collections.abc import Sequence

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from fewshot.episodes.types import Episode
from fewshot.tasks.by_class import NONE
from fewshot.tasks.drawing.confusion import cut

RIGHT, WRONG = "#1a7f37", "#cf222e"
SIDE, ROW = 0.9, 1.15  # of an image and of a row of images, in inches
WIDEST = 12  # characters of a name above an image


def draw_images(
    episode: Episode,
    predicted: Tensor,
    queries: int = 5,
    classes: int = 10,
    names: Sequence[str] | None = None,
) -> Figure:
    """A grid with a column per class: its first support image, then the queries given its label.

    Args:
        episode: images (S, C, H, W) and (N*Q, C, H, W) in [0, 1], labels in 0..N-1.
        predicted: labels (N*Q,) given to the queries.
        queries: rows of queries at most.
        classes: columns at most.
        names: of the classes by label; None: they are numbered from 1 on.
    """
    (support, labels, _), images, targets = (
        episode.support,
        episode.query.inputs,
        episode.query.targets,
    )
    assert isinstance(support, Tensor)
    assert isinstance(images, Tensor)
    way = min(int(labels.max()) + 1, classes)
    rows = min(queries, int((targets == 0).sum()))
    # One pair of axes for all images, in inches: axes for each take a second to lay out.
    width, height = way + 0.3, ROW * (rows + 1) + 0.2
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    for label in range(way):
        title, size = (f"class {label + 1}", 9) if names is None else (cut(names[label], WIDEST), 7)
        axis.text(label + 0.8, 0.12, title, ha="center", va="center", fontsize=size)
        _show(axis, support[labels == label][0], 0, label)
        where = torch.nonzero(targets == label).flatten()[:rows]
        for row, index in enumerate(where.tolist(), start=1):
            given = int(predicted[index])
            colour = RIGHT if given == label else WRONG
            _show(axis, images[index], row, label, colour)
            told = str(given + 1) if names is None else cut([*names, NONE][given], WIDEST)
            mark = f"{'✓' if given == label else '✗'} {told}"
            axis.text(
                label + 0.8,
                ROW * (row + 1) + 0.09,
                mark,
                ha="center",
                va="center",
                fontsize=size,
                color=colour,
            )
    for row in range(rows + 1):
        name = "query" if row else "support"
        axis.text(
            0.15, ROW * row + 0.68, name, ha="center", va="center", fontsize=9, rotation="vertical"
        )
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.axis("off")
    return figure


def _show(axis: Axes, image: Tensor, row: int, column: int, colour: str | None = None) -> None:
    """An image (C, H, W) at its place in the grid, framed in `colour`."""
    left, top = column + 0.35, ROW * row + 0.24
    extent = (left, left + SIDE, top + SIDE, top)
    image = image[-3:] if len(image) > 3 else image  # of a clip, the latest frame
    colours = image.permute(1, 2, 0).clamp(0, 1).expand(-1, -1, 3).numpy()
    axis.imshow(colours, extent=extent, aspect="auto")
    if colour:
        axis.add_patch(
            Rectangle((left, top), SIDE, SIDE, fill=False, edgecolor=colour, linewidth=2)
        )
