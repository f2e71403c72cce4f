"""Which of several runs is best over many sources, by their average ranks."""

import math
from collections.abc import Callable, Sequence

from fewshot.cli.runs import Run, judged_by
from fewshot.cli.sheet import Column, Figure, Sheet
from fewshot.errors import FewshotError
from fewshot.tasks.estimates import Estimate


def ranks(
    estimates: Sequence[Estimate], sign: int = 1, alike: Callable[[int, int], bool] | None = None
) -> list[float]:
    """The rank of each estimate, 1 for the best.

    Those that cannot be told apart share the mean of their ranks.

    From the best down, an estimate belongs to a group as long as it does not differ from the first
    of it at the 5 % level. By default their difference is within the root of the sum of their
    squared 95 % intervals. As these are Student's, so is the level: of few episodes rather below
    5 % (Cochran and Cox's test). An unknown interval (NaN) tells nothing apart. So no rank is won
    by chance.

    Args:
        estimates: means over episodes with their intervals.
        sign: 1 where more is better, -1 where less is.
        alike: whether two, by their places, do not differ.

    >>> ranks([Estimate(0.50, 0.01), Estimate(0.60, 0.01), Estimate(0.61, 0.01)])
    [3.0, 1.5, 1.5]
    """
    alike = alike or (lambda i, j: not is_apart(unpaired(estimates[i], estimates[j])))
    order = sorted(range(len(estimates)), key=lambda i: -sign * estimates[i].mean)
    found = [0.0] * len(estimates)
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and alike(order[start], order[end]):
            end += 1
        for place in order[start:end]:
            found[place] = (start + 1 + end) / 2
        start = end
    return found


def unpaired(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two independent estimates, `one` less `other`."""
    return Estimate(one.mean - other.mean, math.hypot(one.ci95, other.ci95))


def is_apart(difference: Estimate) -> bool:
    """Whether a difference is known not to be 0, at the 5 % level."""
    return abs(difference.mean) > difference.ci95  # NaN: not


def by_source(runs: Sequence[Run], asked: str | None = None) -> Sheet:
    """The runs' results on each shared source, their ranks there, and the ranks' average.

    Args:
        runs: two or more.
        asked: the metric; None: what they are judged by.

    Raises:
        FewshotError: a run has no results on several sources, or the runs share no source.
    """
    shared = _shared(runs)
    metric, sign = judged_by(runs, asked)
    if not sign:
        raise FewshotError(
            f"no run says whether more or less of {metric} is better; rank by what they are judged"
            " by: leave --metric out"
        )
    unit = runs[0].results["units"].get(metric, "")
    rows: list[list[Figure | str]] = []
    places = []
    for source in shared:
        values = [_estimate(run, source, metric) for run in runs]
        places.append(ranks(values, sign))
        found = zip(values, places[-1], strict=True)
        rows.append([source, *(Figure(*value, unit, rank) for value, rank in found)])
    averages = (sum(of) / len(shared) for of in zip(*places, strict=True))
    rows.append(["average rank", *(Figure(None, None, rank=average) for average in averages)])
    parts = (metric, f"{metric} ci95", "rank")
    learners = [str(run.results.get("learner")) for run in runs]
    titles = [
        learner if learners.count(learner) == 1 else run.name
        for run, learner in zip(runs, learners, strict=True)
    ]
    return Sheet(
        f"{metric}, mean ± 95 % CI (rank)",
        [
            Column("source", is_text=True),
            *(Column(t, tuple(f"{t} {part}" for part in parts)) for t in titles),
        ],
        rows,
        caption="ranks that do not differ at the 5 % level are shared",
        has_total=True,
    )


def _shared(runs: Sequence[Run]) -> list[str]:
    for run in runs:
        if not run.results.get("sources"):
            raise FewshotError(
                f"{run.name} has no results source by source; test on a benchmark of several, such"
                " as MetaDatasetDataModule or MultiSourceDataModule"
            )
    first, *others = (run.results["sources"] for run in runs)
    shared = [name for name in first if all(name in other for other in others)]
    if not shared:
        told = "; ".join(f"{run.name}: {', '.join(run.results['sources'])}" for run in runs)
        raise FewshotError(
            f"the runs have no source in common ({told}); test them on the same ones"
        )
    return shared


def _estimate(run: Run, source: str, metric: str) -> Estimate:
    if metric not in run.results["sources"][source]:
        raise FewshotError(f"{run.name} has no {metric} on {source}; leave the run out")
    found = run.estimate(metric, source)
    if not math.isfinite(found.mean):
        raise FewshotError(
            f"{run.name} has no finite {metric} on {source}, so that it has no rank; leave the run"
            " out"
        )
    return found
