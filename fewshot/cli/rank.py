"""`fewshot rank`: which of several runs is best over many sources, by their average ranks."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

from fewshot.cli.options import Options
from fewshot.cli.runs import mean_of, read_results, runs_of
from fewshot.errors import FewshotError
from fewshot.tasks.estimates import Estimate, format_estimate


def rank(args: Sequence[str]) -> None:
    """Run the command."""
    description = "Compare runs on each source that all were tested on, and by their average rank."
    print_ranks(runs_of(Options("rank", description), args))


def ranks(estimates: Sequence[Estimate], sign: int = 1) -> list[float]:
    """The rank of each estimate, 1 for the best.

    Those that cannot be told apart share the mean of their ranks.

    From the best down, an estimate belongs to a group as long as it does not differ from the first
    of it at the 5 % level: their difference is within the root of the sum of their squared 95 %
    intervals. As these are Student's, so is the level: of few episodes rather below 5 % (Cochran
    and Cox's test). An unknown interval (NaN) tells nothing apart. So no rank is won by chance.

    Args:
        estimates: means over episodes with their intervals.
        sign: 1 where more is better, -1 where less is.

    >>> ranks([Estimate(0.50, 0.01), Estimate(0.60, 0.01), Estimate(0.61, 0.01)])
    [3.0, 1.5, 1.5]
    """
    order = sorted(range(len(estimates)), key=lambda i: -sign * estimates[i].mean)
    found = [0.0] * len(estimates)
    start = 0
    while start < len(order):
        best, end = estimates[order[start]], start + 1
        while end < len(order) and _alike(best, estimates[order[end]]):
            end += 1
        for place in order[start:end]:
            found[place] = (start + 1 + end) / 2
        start = end
    return found


def _alike(one: Estimate, other: Estimate) -> bool:
    return not abs(one.mean - other.mean) > math.hypot(one.ci95, other.ci95)  # NaN: alike


def print_ranks(paths: Sequence[str]) -> None:
    """Print the runs' results on each shared source, their ranks there, and the ranks' average.

    Args:
        paths: ``results.json`` of each run, or the run's folder.

    Raises:
        FewshotError: a file is missing or no result on several sources, or the runs share no
            source.
    """
    if len(paths) < 2:
        raise FewshotError("fewshot rank compares runs; give two results.json or more")
    runs = [_read(Path(path)) for path in paths]
    shared = [name for name in runs[0]["sources"] if all(name in run["sources"] for run in runs)]
    if not shared:
        told = "; ".join(
            f"{path}: {', '.join(run['sources'])}" for path, run in zip(paths, runs, strict=True)
        )
        raise FewshotError(
            f"the runs have no source in common ({told}); test them on the same ones"
        )
    from rich.console import Console

    Console().print(_table(paths, runs, shared, *_judged_by(runs)))


def _judged_by(runs: Sequence[Mapping[str, Any]]) -> tuple[str, int]:
    """The metric that a run is judged by and all have, and 1 where more of it is better, else -1.

    Raises:
        FewshotError: there is none.
    """
    monitors = [run["monitor"] for run in runs if run["monitor"] is not None]
    for monitor in monitors:
        metric = monitor["metric"]
        if all(metric in run["metrics"] for run in runs):
            return metric, 1 if monitor["mode"] == "max" else -1
    names = ", ".join(dict.fromkeys(monitor["metric"] for monitor in monitors))
    raise FewshotError(
        f"the runs are judged by {names or 'nothing'}, which they do not have in common; rank runs"
        " of one kind"
    )


def _table(
    paths: Sequence[str],
    runs: Sequence[Mapping[str, Any]],
    sources: Sequence[str],
    metric: str,
    sign: int,
) -> "Table":
    from rich.table import Table

    table = Table(
        title=f"{metric}, mean ± 95 % CI (rank)",
        caption="ranks that do not differ at the 5 % level are shared",
    )
    table.add_column("source")
    learners = [run["learner"] for run in runs]
    for path, learner in zip(paths, learners, strict=True):
        table.add_column(learner if learners.count(learner) == 1 else path, justify="right")
    totals, unit = [0.0] * len(runs), runs[0]["units"].get(metric, "")
    for source in sources:
        values = [
            _estimate(path, source, run["sources"][source], metric)
            for path, run in zip(paths, runs, strict=True)
        ]
        placed = ranks(values, sign)
        totals = [total + rank for total, rank in zip(totals, placed, strict=True)]
        cells = (
            f"{format_estimate(*value, unit)} ({rank:g})"
            for value, rank in zip(values, placed, strict=True)
        )
        table.add_row(source, *cells)
    table.add_section()
    table.add_row("average rank", *(f"{total / len(sources):.2f}" for total in totals))
    return table


def _estimate(path: str, source: str, metrics: Mapping[str, Any], metric: str) -> Estimate:
    mean, ci95 = mean_of(metrics, metric), metrics[metric]["ci95"]
    if not math.isfinite(mean):
        raise FewshotError(
            f"{path} has no finite {metric} on {source}, so that it has no rank; leave the run out"
        )
    return Estimate(mean, math.nan if ci95 is None else ci95)


def _read(path: Path) -> dict[str, Any]:
    content = read_results(path)
    if not content.get("sources"):
        raise FewshotError(
            f"{path} has no results source by source; test on a benchmark of several, such as"
            " MetaDatasetDataModule or MultiSourceDataModule"
        )
    return content
