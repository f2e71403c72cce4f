"""How charts look: their colours, and axes without frames."""

from typing import Literal

from matplotlib.axes import Axes

LINE, INK, FAINT = "#0969da", "#1f2328", "#d8dee4"


def headed(axis: Axes, title: str) -> None:
    """Write a title above the left end.

    Its height is stated: to find it, matplotlib would lay out all labels of the ticks once more.
    """
    axis.set_title(title, loc="left", y=1.0, fontsize=10, color=INK)


def bare(axis: Axes, grid: Literal["x", "y"], size: float) -> None:
    """Leave of the frame the lower side, and draw the lines of a grid behind the data.

    Args:
        axis: to change.
        grid: the coordinate whose values have lines.
        size: of the labels, in points.
    """
    axis.grid(axis=grid, color=FAINT, linewidth=0.8)
    axis.set_axisbelow(True)
    axis.tick_params(length=0, labelsize=size, colors=INK)
    for side in ("top", "right", "left"):
        axis.spines[side].set_visible(False)
    axis.spines["bottom"].set_color(FAINT)
