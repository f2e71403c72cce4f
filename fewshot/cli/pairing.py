"""Runs beside each other: grouped by training seeds, and their differences episode by episode."""

import csv
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from fewshot.cli.rank import unpaired
from fewshot.cli.run_settings import Settings
from fewshot.cli.runs import Run, differing, shown
from fewshot.cli.summary import OF_A_SEED
from fewshot.errors import FewshotError
from fewshot.tasks.estimates import Estimate, estimate_plain

NOT_THE_EPISODES = (
    *OF_A_SEED,
    "learner",
    "backbone",
    "batchnorm",
    "precision",
    "untrained",
    "attack",
    "nota",
    "transductive",
    "balanced_queries",  # which is said of learners that read them together; `query_alpha` counts
    # what was trained on
    "augment",
    "augment_query",
    "class_mixing",
    "label_assignment",
    "normalize",
    "rotation_classes",
    "train_data",
    "train_sources",
    "val_data",
    "val_way",
    "val_classes",
    "test_episodes",  # the file's name; its checksum counts
)
"""What may differ between results on the same test episodes. All else is taken to make them."""
NOT_OF_VALIDATION = [name for name in NOT_THE_EPISODES if not name.startswith("val_")]
"""The same of validation episodes."""
ALIKE = 1e-9  # of a mean, by which it is its episodes' mean


class Difference(NamedTuple):
    """How much better or worse a row is than another."""

    estimate: Estimate
    way: str
    """``paired`` by episodes, ``over seeds``, ``paired, over seeds``, or ``unpaired``."""
    reason: str = ""
    """Why it is unpaired."""


class Row:
    """A row of the comparison: a run, or runs that differ in their training seeds alone.

    Args:
        runs: one or more.
        metric: which all have.
    """

    def __init__(self, runs: Sequence[Run], metric: str) -> None:
        self.runs, self.metric = runs, metric
        means = [run.mean(metric) for run in runs]
        self.estimate = runs[0].estimate(metric) if len(runs) == 1 else estimate_plain(means)
        """Of one run over its episodes, of several over their seeds."""

    @cached_property
    def episodes(self) -> dict[int, float] | str:
        """The metric by the number of the episode, the mean over seeds; or why it is not known."""
        columns = []
        for run in self.runs:
            column = _episodes(run, self.metric)
            if isinstance(column, str):
                return column
            columns.append(column)
        if any(column.keys() != columns[0].keys() for column in columns):
            return f"the runs of {self.runs[0].name} and its seeds list other episodes"
        number = len(columns)
        return {i: math.fsum(column[i] for column in columns) / number for i in columns[0]}

    def less(self, other: "Row") -> Difference:
        """How much more the metric is here than in `other`, with its 95 % interval.

        Two runs are compared over the episodes that both were tested on, by Student's t on the
        differences of each; two groups of seeds over the seeds, whose trainings have nothing in
        common. Of a group and a run both count: the squared intervals add up.
        """
        apart = unpaired(self.estimate, other.estimate)
        if min(len(self.runs), len(other.runs)) > 1:
            return Difference(apart, "over seeds")
        one, two = self.runs[0].results, other.runs[0].results
        free = NOT_THE_EPISODES if one["stage"] == "test" else NOT_OF_VALIDATION
        if key := differing(one, two, free):
            reason = f"{key} {shown(one.get(key))}, not {shown(two.get(key))}"
            return Difference(apart, "unpaired", reason)
        here, there = self.episodes, other.episodes
        if isinstance(here, str) or isinstance(there, str):
            reason = here if isinstance(here, str) else str(there)
            return Difference(apart, "unpaired", reason)
        if here.keys() != there.keys():
            return Difference(apart, "unpaired", "other numbers of episodes in episodes.csv")
        paired = estimate_plain([here[number] - there[number] for number in here])
        seeds = [row.estimate.ci95 for row in (self, other) if len(row.runs) > 1]
        if seeds:
            ci95 = math.hypot(paired.ci95, *seeds)
            return Difference(paired._replace(ci95=ci95), "paired, over seeds")
        return Difference(paired, "paired")


def _episodes(run: Run, metric: str) -> dict[int, float] | str:
    """The column of a metric in a run's episodes.csv, by episode; or why it has none.

    Raises:
        FewshotError: the file is none that a test has written.
    """
    path = run.folder / "episodes.csv"
    if not path.exists():
        return f"{path} is missing"
    column = _column(path, metric)
    mean = run.mean(metric)
    if not column:
        return f"{metric} is no column of {path}"
    found = math.fsum(column.values()) / len(column)
    if not abs(found - mean) <= ALIKE * max(1.0, abs(mean)):
        return f"{metric} is not the plain mean of {path}"
    return column


def _column(path: Path, metric: str) -> dict[int, float]:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            titles = next(rows, [])
            if "episode" not in titles:
                raise ValueError("it has no column episode")
            if metric not in titles:
                return {}
            places = titles.index("episode"), titles.index(metric)
            values = [(row[places[0]], float(row[places[1]])) for row in rows]
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise FewshotError(
            f"{path} is no table of episodes ({error}); test again, or move it away to compare the"
            " run unpaired"
        ) from error
    return {int(float(number)): value for number, value in values}


def grouped(runs: Sequence[Run], settings: Mapping[str, Settings | None], metric: str) -> list[Row]:
    """The runs as rows, in their order: those that differ in their training seed alone together.

    Args:
        runs: to be compared.
        settings: of the runs by their names; a run without any stands alone.
        metric: which all have.
    """
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if _is_another_seed(run, group, settings):
                group.append(run)
                break
        else:
            groups.append([run])
    return [Row(group, metric) for group in groups]


def _is_another_seed(
    run: Run, group: Sequence[Run], settings: Mapping[str, Settings | None]
) -> bool:
    first, seed = group[0], run.results.get("seed_everything")
    return (
        seed is not None
        and all(other.results.get("seed_everything") not in (None, seed) for other in group)
        and settings[run.name] is not None
        and settings[run.name] == settings[first.name]
        and differing(run.results, first.results, OF_A_SEED) is None
    )
