"""Tested runs: found by what the command line names, and their results read back."""

import json
import math
import re
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.errors import FewshotError, nearest
from fewshot.tasks.estimates import Estimate

RESULTS, CHECKPOINTS = "results.json", "checkpoints"
SHOWN = 60  # characters of a value in a message


class Run(NamedTuple):
    """A tested run."""

    name: str
    """Its path, as the command line names it or the folder that holds it."""
    folder: Path
    results: dict[str, Any]

    def mean(self, metric: str) -> float:
        """The mean of a metric; NaN where the file has null, which JSON has for it."""
        return self.estimate(metric).mean

    def estimate(self, metric: str, source: str | None = None) -> Estimate:
        """The mean of a metric, of all episodes or of one source, with its interval."""
        metrics = self.results if source is None else {"metrics": self.results["sources"][source]}
        of = metrics["metrics"][metric]
        return Estimate(*(math.nan if of.get(n) is None else of[n] for n in ("mean", "ci95")))


def find_runs(paths: Iterable[str]) -> tuple[list[Path], list[Path]]:
    """The files of results that `paths` name, each once, and the untested runs beside them.

    A path is a run's folder, its ``results.json`` or another of its files, such as a checkpoint; or
    a folder that holds runs, which stands for those of them that were tested.

    Raises:
        FewshotError: a file belongs to no tested run.
    """
    found: dict[Path, Path] = {}
    untested: list[Path] = []
    for path in map(Path, paths):
        files = [_file_of(path)]
        if path.is_dir() and not _is_run(path):
            inside = sorted((p for p in path.iterdir() if _is_run(p)), key=_natural)
            files = [p / RESULTS for p in inside if (p / RESULTS).is_file()] or files
            untested += [p for p in inside if not (p / RESULTS).is_file()]
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values()), untested


def _file_of(path: Path) -> Path:
    """The results of the run that a folder or a file is, or belongs to."""
    if path.is_dir():
        run = path.parent if path.name == CHECKPOINTS and _is_run(path.parent) else path
        return run / RESULTS
    if path.suffix == ".json" or not path.exists():
        return path
    for run in path.resolve().parents[:2]:
        if (run / RESULTS).is_file():
            return run / RESULTS
    raise FewshotError(f"{path} belongs to no tested run; give the folder of one")


def _is_run(path: Path) -> bool:
    return any((path / name).exists() for name in (RESULTS, "config.yaml", CHECKPOINTS))


def _natural(path: Path) -> list[str | int]:
    """What sorts names by their numbers: run-9 before run-10."""
    parts = re.split(r"(\d+)", path.name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


def read_runs(files: Iterable[Path], partial: bool = False) -> list[Run]:
    """The runs whose results are in `files`.

    Args:
        files: as `find_runs` gives them.
        partial: whether tests that were stopped are taken.

    Raises:
        FewshotError: what is wrong with any of the files, in one line.
    """
    runs, wrong = [], []
    for file in files:
        name = str(file.parent if file.name == RESULTS else file)
        try:
            runs.append(Run(name, file.parent, read_results(file, partial)))
        except FewshotError as error:
            wrong.append(str(error))
    if wrong:
        raise FewshotError("; ".join(wrong))
    return runs


def read_results(path: Path, partial: bool = False) -> dict[str, Any]:
    """What `fewshot test` or `validate` has written, by the run's folder or its ``results.json``.

    The first files of version 0.1.0 name no units and no metric to judge by, and do not say whether
    their weights were trained or the test went to its end: these are added, as is what only a
    validation says, that it is none of a test.

    Args:
        path: of the folder or file.
        partial: whether that of a test that was stopped is taken.

    Raises:
        FewshotError: there is no such file, it is no results, or of a test that was stopped.
    """
    file = path / RESULTS if path.is_dir() else path
    config = file.with_name("config.yaml")
    if not file.exists() and config.exists():
        raise FewshotError(
            f"{file} is missing: the run was not tested; give folders of tested runs, or `fewshot"
            f" test --config {config} --ckpt_path {config.parent}`"
        )
    if not file.exists():
        raise FewshotError(f"{file} is missing; give folders of tested runs")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        _check(content)
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FewshotError(
            f"{file} is no results.json ({reason}); give folders of tested runs"
        ) from error
    if content.get("partial") and not partial:
        raise FewshotError(
            f"{file} is of a test that was stopped after {content.get('episodes')} episodes; test"
            " again, or leave it out"
        )
    names = content["metrics"]
    added = {"units": _old_units(names), "monitor": _old_monitor(names)}
    return {**added, "untrained": False, "partial": False, "stage": "test", **content}


def _check(content: Any) -> None:
    """Check that the content of a file is that of results, as far as it is looked at.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(content, dict):
        raise ValueError(f"it holds a {type(content).__name__}")
    if "metrics" not in content:
        raise ValueError("it has no metrics")
    for name in ("seconds", "parameters"):  # which files of version 0.1.0 lack
        if not isinstance(content.get(name), int | float | None):
            raise ValueError(f"its {name} are no number")
    units, monitor = content.get("units", {}), content.get("monitor")
    if not isinstance(units, dict) or not all(isinstance(unit, str) for unit in units.values()):
        raise ValueError("its units are no words")
    if monitor is not None and not (isinstance(monitor, dict) and {"metric", "mode"} <= {*monitor}):
        raise ValueError("its monitor has no metric and mode")
    tables = [content["metrics"]]
    if "sources" in content:
        tables += content["sources"].values() if isinstance(content["sources"], dict) else [None]
    for table in tables:
        of_metrics = table.values() if isinstance(table, dict) else [None]
        for of in of_metrics:
            figures = [of.get("mean"), of.get("ci95")] if isinstance(of, dict) else [""]
            if not all(figure is None or isinstance(figure, int | float) for figure in figures):
                raise ValueError("its metrics are no means with intervals")


def _old_units(metrics: Iterable[str]) -> dict[str, str]:
    """The units of a file that names none, from the names of its metrics; for old files alone."""
    shares = ("accuracy", "recall", "f1", "em", "miou", "fb_iou", "iou_")
    return {name: "%" for name in metrics if name.startswith(shares)}


def _old_monitor(metrics: Container[str]) -> dict[str, str] | None:
    """What a file is ranked by that does not say it; for old files alone."""
    ends = {"accuracy": "max", "mse": "min"}
    return next(({"metric": m, "mode": end} for m, end in ends.items() if m in metrics), None)


# ------------------------------------------------------------------ what runs have in common


def judged_by(runs: Sequence[Run], asked: str | None = None) -> tuple[str, int]:
    """The metric that runs are compared by, and 1 where more of it is better, -1 where less is.

    0 where that is not known.

    Args:
        runs: that all must have it.
        asked: it; None: what one of the runs is judged by.

    Raises:
        FewshotError: they do not have it in common.
    """
    monitors = [run.results["monitor"] for run in runs if run.results["monitor"] is not None]
    signs = {of["metric"]: 1 if of["mode"] == "max" else -1 for of in reversed(monitors)}
    if asked is not None:
        _check_common(runs, asked)
        better = [sign for name, sign in signs.items() if f"{asked}_".startswith(f"{name}_")]
        return asked, -1 if f"{asked}_".startswith("loss_") else (better or [0])[0]
    for monitor in monitors:
        if all(monitor["metric"] in run.results["metrics"] for run in runs):
            return monitor["metric"], signs[monitor["metric"]]
    names = [*dict.fromkeys(monitor["metric"] for monitor in monitors)]
    remedy = (
        f"--metric {names[0]} takes those of a folder that have it" if names else "set --metric"
    )
    raise FewshotError(
        f"the runs are judged by {', '.join(names) or 'nothing'}, which they do not have in common;"
        f" take runs of one kind; {remedy}"
    )


def with_metric(
    runs: Sequence[Run], paths: Sequence[str], metric: str | None
) -> tuple[list[Run], list[Run]]:
    """The runs that are compared by a metric, and those that are left out as they lack it.

    Left out are those that nobody names, but a folder that holds them.

    Args:
        runs: that were found.
        paths: what the command line names.
        metric: that is asked for; None: any.
    """
    named = {_file_of(path).parent.resolve() for path in map(Path, paths) if _is_named(path)}
    lacking = [
        run
        for run in runs
        if metric is not None
        and metric not in run.results["metrics"]
        and run.folder.resolve() not in named
    ]
    if len(lacking) == len(runs):  # the name may be misspelt
        return list(runs), []
    return [run for run in runs if run not in lacking], lacking


def _is_named(path: Path) -> bool:
    return not path.is_dir() or _is_run(path)


def _check_common(runs: Sequence[Run], metric: str) -> None:
    common = [m for m in runs[0].results["metrics"] if all(m in r.results["metrics"] for r in runs)]
    for run in runs:
        if metric not in run.results["metrics"]:
            remedy = nearest(metric, common) if common else "; leave the run out"
            raise FewshotError(f"{run.name} has no metric {metric!r}{remedy}")


def differing(
    one: Mapping[str, Any], other: Mapping[str, Any], free: Collection[str]
) -> str | None:
    """The first key by which results differ that is not `free` to; None where there is none."""
    keys = (key for key in {**other, **one} if key not in free)
    return next((key for key in keys if one.get(key) != other.get(key)), None)


def shown(value: Any) -> str:
    """A value in a message: none that fills the screen, such as a list of all classes."""
    text = str(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def protocol(results: Mapping[str, Any]) -> str:
    """The benchmark and its task, in words."""
    way = f"{results['way']}-way " if results.get("way") else ""
    shot = f"{results['shot']}-shot" if results.get("shot") else "any shot"
    stage = "" if results.get("stage", "test") == "test" else f", {results['stage']}"
    return f"{results.get('benchmark') or 'own data'}, {way}{shot}{stage}"
