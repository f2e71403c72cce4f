"""Pictures of several records beside each other, in pages that name them in a comment."""

import re
from collections.abc import Iterable

from plot import OURS, Mark, drawn, measured

from fewshot.cli.records import find

PLACE = re.compile(r"<!-- beside: (?P<rows>[^>]+?) -->\n.*?<!-- end of beside -->", re.DOTALL)
"""`<!-- beside: RECORD, RECORD: TASK, ... -->`: all tasks of a record, or one."""


def beside(text: str) -> str:
    """A page's text with its pictures drawn anew.

    Raises:
        FewshotError: a record that a page names is not there.
        ValueError: it has no such task, or the figures are of several metrics.
    """
    return PLACE.sub(lambda place: written(place["rows"]), text)


def written(rows: str) -> str:
    """The picture of these rows, in its comments."""
    named = [one.partition(": ")[::2] for one in rows.split(", ")]
    found = [row for name, task in named for row in marks_of(name, task, len(named) == 1)]
    axes = {axis for axis, _ in found}
    if len(axes) > 1:
        raise ValueError(f"{rows}: one picture shows one metric, but these are {sorted(axes)}")
    picture = drawn(*axes.pop(), [mark for _, mark in found])
    legend = f"{OURS} measured; lines are 95 % intervals."
    shown = f"```text\n{picture}\n```\n\n{legend}"
    return f"<!-- beside: {rows} -->\n\n{shown}\n\n<!-- end of beside -->"


def marks_of(name: str, task: str, alone: bool) -> Iterable[tuple[tuple[str, str], Mark]]:
    """The metric, its unit and the line of a record's tasks, or of one: each's last figure.

    Where the record is `alone` in the picture, its lines are called by their tasks.
    """
    record = find(name)
    steps = [step for step in record.steps if task in ("", step.task)]
    if not steps:
        raise ValueError(f"{name} has no task {task!r}")
    for step in steps:
        figure = step.figures[-1]
        label = record.title
        if len(record.steps) > 1:
            label = step.task if alone else f"{label}, {step.task}"
        yield (figure.metric, figure.unit), measured(label, figure, step)
