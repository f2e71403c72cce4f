"""A forest plot: means with their intervals, one below the other."""

from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from fewshot.files import atomic_write
from fewshot.files.tables import printable
from fewshot.tasks.drawing.style import FAINT, INK, LINE, bare, headed
from fewshot.tasks.estimates import Estimate, scale_of


def draw(estimates: Mapping[str, Estimate], title: str, unit: str, path: Path) -> None:
    """Draw estimates by their names, the first on top, into a PNG or SVG file.

    Args:
        estimates: in order; what is not known of one is not drawn.
        title: what is estimated, on which benchmark.
        unit: of the estimates; shares are drawn in per cent.
        path: of the file, whose ending says what it is; it is written whole or not at all.
    """
    figure = Figure(figsize=(7, 1.0 + 0.3 * len(estimates)), layout="constrained")
    axis, scale = figure.add_subplot(), scale_of(unit)
    places = range(len(estimates))
    means = [scale * mean for mean, _ in estimates.values()]
    widths = [scale * ci95 for _, ci95 in estimates.values()]
    axis.errorbar(
        means, places, xerr=widths, fmt="o", color=LINE, markersize=4.5, capsize=3, linewidth=1.4
    )
    # a dollar sign would begin a formula
    names = [printable(name).replace("$", r"\$") for name in estimates]
    axis.set_yticks(places, names, fontsize=8, color=INK)
    axis.set_ylim(len(estimates) - 0.5, -0.5)
    axis.axvline(means[0], color=FAINT, linewidth=2, zorder=0)  # what others are compared to
    headed(axis, title.replace("$", r"\$"))
    axis.set_xlabel(unit, fontsize=9, color=INK)
    bare(axis, "x", 8)
    with atomic_write(path, binary=True) as file:
        figure.savefig(file, format=path.suffix.lower().removeprefix("."), dpi=150)
