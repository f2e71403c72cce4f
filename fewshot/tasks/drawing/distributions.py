"""How a figure spreads over episodes, and how far probabilities can be trusted."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fewshot.tasks.drawing.style import FAINT, INK, LINE, bare, headed
from fewshot.tasks.estimates import Estimate, format_estimate, scale_of

MOST = 20  # bins of a histogram
GAP = "#cf222e"


def draw_histogram(
    values: NDArray[np.float64], name: str, unit: str, estimate: Estimate
) -> Figure | None:
    """How many episodes had which value; the mean is a line, and its interval a band.

    Args:
        values: of the episodes, (E,); those that are not finite are left out.
        name: of the metric.
        unit: as `Task.unit` gives it.
        estimate: the mean that is reported.

    Returns:
        None where fewer than two are finite: one episode is no distribution.
    """
    scale = scale_of(unit)
    finite = scale * values[np.isfinite(values)]
    if len(finite) < 2:
        return None
    figure, axis = _panel()
    axis.hist(finite, bins=_edges(finite), color=LINE, alpha=0.75, edgecolor="white", linewidth=0.6)
    mean, ci95 = (scale * figure for figure in estimate)
    if np.isfinite(ci95):
        axis.axvspan(mean - ci95, mean + ci95, color=INK, alpha=0.18, linewidth=0)
    axis.axvline(mean, color=INK, linewidth=1.2)
    headed(axis, f"{len(finite)} test episodes: {format_estimate(*estimate, unit)}")
    axis.set_xlabel(f"{name} of an episode{f' ({unit})' if unit else ''}", color=INK)
    axis.set_ylabel("episodes", color=INK)
    return figure


def _edges(values: NDArray[np.float64]) -> list[float]:
    """Edges of equal bins; where few values occur, as in accuracies of few queries, one bin each.

    Bins narrower than the steps between values would show gaps that mean nothing.
    """
    found = np.unique(values)
    low, high = found[0], found[-1]
    if low == high:
        return [float(low) - 0.5, float(low) + 0.5]
    steps = np.diff(found)
    steps = steps[steps > 1e-5 * (high - low)]  # single precision makes of one accuracy several
    step = steps.min() if len(steps) else (high - low) / MOST
    number = round((high - low) / step) + 1
    # each bin holds as many steps as every other
    most = MOST if number <= MOST else max(2, min(MOST, round(len(values) ** 0.5)))
    wide, start = step * np.ceil(number / most), low - step / 2
    bins = int(np.ceil((high - start) / wide))
    return [float(start + wide * place) for place in range(bins + 1)]


def draw_reliability(
    sums: NDArray[np.float64], error: float, temperature: float | None
) -> Figure | None:
    """The share of right answers against the confidence they were given with, bin by bin.

    Of trustworthy probabilities both are the same: the diagonal (Guo et al., arXiv:1706.04599).

    Args:
        sums: of each bin the queries, the right ones and the summed confidence, (3, bins).
        error: the expected calibration error.
        temperature: what logits were divided by; None: nothing.

    Returns:
        None where there are no queries.
    """
    queries = sums[0]
    met = queries > 0
    if not met.any():
        return None
    right, confidence = 100 * sums[1:, met] / queries[met]
    wide = 100 / len(queries)
    places = wide * (np.flatnonzero(met) + 0.5)
    figure, axis = _panel()
    shares = queries[met] / queries.sum()
    axis.bar(places, 100 * shares, 0.94 * wide, color=FAINT, label="share of the queries")
    axis.plot((0, 100), (0, 100), color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axis.vlines(confidence, right, confidence, color=GAP, linewidth=2, label="gap")
    axis.plot(confidence, right, color=LINE, marker="o", markersize=4, label="right answers")
    at = "" if temperature is None else f", temperature {temperature:.3g}"
    headed(axis, f"calibration error (ECE) {100 * error:.2f} %{at}")
    axis.set(xlim=(0, 100), ylim=(0, 100), xticks=range(0, 101, 25), yticks=range(0, 101, 25))
    axis.set_xlabel("confidence (%)", color=INK)
    axis.set_ylabel("%", color=INK)
    axis.legend(fontsize=8, frameon=False, loc="upper left", labelcolor=INK)
    return figure


def _panel() -> tuple[Figure, Axes]:
    """A figure of one chart."""
    figure = Figure(figsize=(4.6, 3.4))
    axis = figure.add_axes((0.13, 0.15, 0.83, 0.75))
    bare(axis, "y", 9)
    return figure, axis
