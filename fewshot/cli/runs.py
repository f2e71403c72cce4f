"""The results of earlier runs, read back."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot.cli.options import Options
from fewshot.errors import FewshotError


def results_file(path: Path) -> Path:
    """The results of a run, given its folder or that file itself."""
    return path / "results.json" if path.is_dir() else path


def read_results(path: Path) -> dict[str, Any]:
    """What `fewshot test` has written, by the run's folder or by its ``results.json``.

    Raises:
        FewshotError: there is no such file, or it is no JSON object.
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
    return content


def runs_of(parser: Options, args: Sequence[str]) -> list[str]:
    """The runs that the command line `args` name, for a command that takes folders of runs."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="the folder of a tested run, or its results.json"
    )
    runs: list[str] = getattr(parser.read(args), "runs", [])
    return runs
