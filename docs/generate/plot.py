"""Figures of a record beside the paper's, as a picture of characters: it is the same everywhere."""

from collections.abc import Sequence
from typing import NamedTuple

from fewshot.cli.records import Figure, Record, Step

WIDTH = 48  # characters of the axis
OURS, PAPERS = "●", "◆"
LEGEND = f"{OURS} measured, {PAPERS} the paper's; lines are 95 % intervals, or what a paper spans."


class Mark(NamedTuple):
    """A line of the picture: a range, and what is marked in it."""

    label: str
    low: float
    high: float
    points: Sequence[float]
    sign: str


def plot(record: Record) -> str:
    """The picture of a record: an axis a metric; empty where no interval and no paper is known."""
    axes: dict[tuple[str, str], list[Mark]] = {}
    for step in record.steps:
        for figure in step.figures:
            marks = axes.setdefault((figure.metric, figure.unit), [])
            marks.append(measured(step.task, figure, step))
            of = figure.paper
            if of is not None:
                spread = of.ci95 or 0.0
                points = [of.low] if of.low == of.high else [of.low, of.high]
                marks.append(Mark("", of.low - spread, of.high + spread, points, PAPERS))
    pictures = [
        drawn(metric, unit, marks) for (metric, unit), marks in axes.items() if _spread(marks) > 0
    ]
    return "\n\n".join(pictures)


def measured(label: str, figure: Figure, step: Step) -> Mark:
    """The line of a figure that a step gave."""
    width, mean = figure.interval(step.folds) or 0.0, figure.mean
    return Mark(label, mean - width, mean + width, [mean], OURS)


def _spread(marks: Sequence[Mark]) -> float:
    return max(mark.high for mark in marks) - min(mark.low for mark in marks)


def drawn(metric: str, unit: str, marks: Sequence[Mark]) -> str:
    """An axis, and a line a mark below it."""
    low, spread = min(mark.low for mark in marks), _spread(marks)
    ends = [f"{value:.4g}" for value in (low, low + spread)]
    title = f"{metric} ({unit})" if unit else metric
    label = max(map(len, (title, *(mark.label for mark in marks))))
    scale = f"{ends[0]}{ends[1].rjust(WIDTH - len(ends[0]))}"
    return "\n".join([f"{title:{label}}  {scale}", *(_line(m, low, spread, label) for m in marks)])


def _line(mark: Mark, low: float, spread: float, label: int) -> str:
    def place(value: float) -> int:
        return round((value - low) / spread * (WIDTH - 1))

    row = [" "] * WIDTH
    begin, end = place(mark.low), place(mark.high)
    if end > begin:
        row[begin : end + 1] = ["├", *"─" * (end - begin - 1), "┤"]
    for point in mark.points:
        row[place(point)] = mark.sign
    return f"{mark.label:{label}}  {''.join(row)}".rstrip()
