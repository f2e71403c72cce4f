"""The results of earlier runs, read back."""

import json
import math
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.cli.options import Options
from fewshot.errors import FewshotError


def results_file(path: Path) -> Path:
    """The results of a run, given its folder or that file itself."""
    return path / "results.json" if path.is_dir() else path


def read_results(path: Path) -> dict[str, Any]:
    """What `fewshot test` has written, by the run's folder or by its ``results.json``.

    The first files of version 0.1.0 name no units and no metric to judge by, and do not say whether
    their weights were trained or the test went to its end: these are added.

    Raises:
        FewshotError: there is no such file, it is no JSON object, or of a test that was stopped.
    """
    file = results_file(path)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except (OSError, ValueError) as error:
        raise FewshotError(
            f"{file} is no results.json ({error}); give folders of tested runs"
        ) from error
    if content.get("partial"):
        raise FewshotError(
            f"{file} is of a test that was stopped after {content.get('episodes')} episodes; test"
            " again, or leave it out"
        )
    names = content.get("metrics", {})
    added = {"units": _old_units(names), "monitor": _old_monitor(names)}
    return {**added, "untrained": False, "partial": False, **content}


def mean_of(metrics: Mapping[str, Mapping[str, float | None]], name: str) -> float:
    """The mean of a metric among a run's; NaN where the file has null, which JSON has for it."""
    mean = metrics[name]["mean"]
    return math.nan if mean is None else float(mean)


def _old_units(metrics: Iterable[str]) -> dict[str, str]:
    """The units of a file that names none, from the names of its metrics; for old files alone."""
    shares = ("accuracy", "recall", "f1", "em", "miou", "fb_iou", "iou_")
    return {name: "%" for name in metrics if name.startswith(shares)}


def _old_monitor(metrics: Container[str]) -> dict[str, str] | None:
    """What a file is ranked by that does not say it; for old files alone."""
    ends = {"accuracy": "max", "mse": "min"}
    return next(({"metric": m, "mode": end} for m, end in ends.items() if m in metrics), None)


def runs_of(parser: Options, args: Sequence[str]) -> list[str]:
    """The runs that the command line `args` name, for a command that takes folders of runs."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="the folder of a tested run, or its results.json"
    )
    runs: list[str] = getattr(parser.read(args), "runs", [])
    return runs
