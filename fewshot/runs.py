"""The results of earlier runs, read back."""

import json
from pathlib import Path
from typing import Any

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
