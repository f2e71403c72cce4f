"""`fewshot summary`: mean, deviation and interval of results over folds or seeds of a protocol."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cli.options import Options
from fewshot.cli.runs import mean_of, read_results, results_file, runs_of
from fewshot.errors import FewshotError
from fewshot.tasks.estimates import format_estimate
from fewshot.tasks.intervals import LEAST, t95

OF_A_RUN = (
    "split",
    "seed",
    "seed_everything",
    "checkpoint",
    "global_step",
    "threshold",
    "metrics",
    "versions",
    "units",
    "monitor",
    "train_data",
    "val_data",
    "test_data",
)
"""What may differ between runs that are put together.

The step, because each is tested at its best on validation; units and monitor, which files of
version 0.1.0 do not state, because the metrics' names say enough.
"""


def summary(args: Sequence[str]) -> None:
    """Run the command."""
    description = "Print each metric's mean, deviation and 95 % interval over runs (seeds, folds)."
    print_summary(runs_of(Options("summary", description), args))


class Spread(NamedTuple):
    """The mean of a metric over runs, its sample standard deviation, and its 95 % interval."""

    mean: float
    deviation: float
    ci95: float
    """The half-width, t s / sqrt(runs) with Student's t; NaN, unknown, of two runs."""


def spread(results: Mapping[str, Mapping[str, Any]]) -> dict[str, Spread]:
    """Mean, deviation, interval of each metric over runs' `results` by name; a run counts once.

    Raises:
        FewshotError: there are fewer than two, one is there twice, or they are not of one protocol.
    """
    if len(results) < 2:
        raise FewshotError("a deviation needs two runs at least; name more folders")
    names, runs = list(results), list(results.values())
    for name, run in zip(names[1:], runs[1:], strict=True):
        for key in dict.fromkeys([*runs[0], *run]):
            if key not in OF_A_RUN and run.get(key) != runs[0].get(key):
                raise FewshotError(
                    f"{name} has {key} {run.get(key)}, {names[0]} has {runs[0].get(key)}; put runs"
                    " of one protocol together"
                )
        if run["metrics"].keys() != runs[0]["metrics"].keys():
            raise FewshotError(
                f"{name} has the metrics {', '.join(run['metrics'])}, {names[0]} has"
                f" {', '.join(runs[0]['metrics'])}; put runs of one protocol together"
            )
    drawn = [[run.get(key) for key in ("split", "seed", "seed_everything")] for run in runs]
    for i, one in enumerate(drawn):
        if one in drawn[:i]:
            trained = "" if one[2] is None else f" and seed_everything {one[2]}"
            raise FewshotError(
                f"{names[i]} and {names[drawn.index(one)]} both have split {one[0]} and seed"
                f" {one[1]}{trained}; leave one out"
            )
    values = {
        metric: [mean_of(run["metrics"], metric) for run in runs] for metric in runs[0]["metrics"]
    }
    return {metric: _spread(found) for metric, found in values.items()}


def _spread(values: Sequence[float]) -> Spread:
    if not all(map(math.isfinite, values)):
        return Spread(math.nan, math.nan, math.nan)
    number, deviation = len(values), statistics.stdev(values)
    ci95 = math.nan if number < LEAST else t95(number - 1) * deviation / math.sqrt(number)
    return Spread(statistics.mean(values), deviation, ci95)


def print_summary(paths: Sequence[str]) -> None:
    """Print mean, deviation and interval of each metric over the runs in these folders."""
    results = {path: read_results(Path(path)) for path in dict.fromkeys(paths)}
    for path, run in results.items():
        if "metrics" not in run:
            raise FewshotError(
                f"{results_file(Path(path))} has no metrics; give folders of tested runs"
            )
    from rich.console import Console
    from rich.table import Table

    spreads, first = spread(results), next(iter(results.values()))
    way = f"{first['way']}-way " if first.get("way") else ""
    table = Table(
        title=f"{first['learner']} on {first['benchmark']}, {way}{first['shot']}-shot",
        caption=f"{len(results)} runs: {', '.join(str(run['split']) for run in results.values())}",
    )
    table.add_column("metric")
    table.add_column("mean ± deviation", justify="right")
    table.add_column("mean ± 95 % CI", justify="right")
    for name, (mean, *spreads_of) in spreads.items():
        unit = first["units"].get(name, "")
        table.add_row(name, *(format_estimate(mean, spread, unit) for spread in spreads_of))
    Console().print(table)
