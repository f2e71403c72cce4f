"""Mean, deviation and interval of results over folds or seeds of a protocol."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from fewshot.cli.runs import Run, differing, judged_by, protocol, shown
from fewshot.cli.sheet import Column, Figure, Sheet
from fewshot.errors import FewshotError
from fewshot.tasks.estimates import deviation, estimate_plain

OF_A_SEED = (
    "seed_everything",
    "checkpoint",
    "global_step",
    "threshold",
    "metrics",
    "calibration",
    "memorisation",
    "by_class",
    "sources",
    "versions",
    "units",
    "monitor",
    "parameters",
    "seconds",
)
"""What may differ between runs of several training seeds.

The step, because each is tested at its best on validation; units and monitor, which files of
version 0.1.0 do not state, because the metrics' names say enough; parameters likewise.
"""
OF_A_RUN = (*OF_A_SEED, "split", "seed", "train_data", "val_data", "test_data")
"""What may differ between runs that are put together."""


class Spread(NamedTuple):
    """The mean of a metric over runs, its sample standard deviation, and its 95 % interval."""

    mean: float
    deviation: float
    ci95: float
    """The half-width, t s / sqrt(runs) with Student's t; NaN, unknown, of two runs."""


def spread(runs: Sequence[Run]) -> dict[str, Spread]:
    """Mean, deviation, interval of each metric over two `runs` or more; each counts once.

    Raises:
        FewshotError: one is there twice, or they are not of one protocol.
    """
    first, metrics = runs[0], runs[0].results["metrics"]
    for run in runs[1:]:
        if key := differing(run.results, first.results, OF_A_RUN):
            raise FewshotError(
                f"{run.name} has {key} {shown(run.results.get(key))}, {first.name} has"
                f" {shown(first.results.get(key))}; put runs of one protocol together"
            )
        if run.results["metrics"].keys() != metrics.keys():
            raise FewshotError(
                f"{run.name} has the metrics {', '.join(run.results['metrics'])}, {first.name} has"
                f" {', '.join(metrics)}; put runs of one protocol together"
            )
    _check_each_once(runs)
    return {metric: _spread([run.mean(metric) for run in runs]) for metric in metrics}


def _check_each_once(runs: Sequence[Run]) -> None:
    drawn = [[run.results.get(k) for k in ("split", "seed", "seed_everything")] for run in runs]
    for i, one in enumerate(drawn):
        if one in drawn[:i]:
            trained = "" if one[2] is None else f" and seed_everything {one[2]}"
            raise FewshotError(
                f"{runs[i].name} and {runs[drawn.index(one)].name} both have split {one[0]} and"
                f" seed {one[1]}{trained}; leave one out"
            )


def _spread(values: Sequence[float]) -> Spread:
    if not all(map(math.isfinite, values)):
        return Spread(math.nan, math.nan, math.nan)
    mean, ci95 = estimate_plain(values)
    return Spread(mean, deviation(values), ci95)


def by_metric(runs: Sequence[Run], asked: str | None = None) -> Sheet:
    """Mean, deviation and interval of each metric, or of the one that is asked for, over runs."""
    found, first = spread(runs), runs[0].results
    if asked is not None:
        found = {asked: found[judged_by(runs, asked)[0]]}
    rows = [
        [name, Figure(of.mean, of.deviation, unit), Figure(of.mean, of.ci95, unit)]
        for name, of in found.items()
        for unit in [first["units"].get(name, "")]
    ]
    columns = [
        Column("metric", is_text=True),
        Column("mean ± deviation", ("mean", "deviation")),
        Column("mean ± 95 % CI", ("", "ci95")),
    ]
    splits = ", ".join(dict.fromkeys(str(run.results.get("split")) for run in runs))
    title, caption = f"{first.get('learner')} on {protocol(first)}", f"{len(runs)} runs: {splits}"
    return Sheet(title, columns, rows, caption=caption)
