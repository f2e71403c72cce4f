"""Where the runs of a sweep lie: their names, the record of what each is, and their loggers."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fewshot.cli.arguments import read_config
from fewshot.cli.sweep_plan import Choice, Combination
from fewshot.errors import FewshotError
from fewshot.files import atomic_write

RECORD = "sweep.json"
"""The file in the folder of a sweep that says what runs were begun there."""


def named(plan: Sequence[Combination], folder: Path, write: bool = False) -> list[Combination]:
    """The runs with names that are theirs alone in a folder, also beside those of other sweeps.

    Args:
        plan: the runs, by what they would be called.
        folder: of the sweep, whose record says what its runs were.
        write: whether the names are written down there.

    Raises:
        FewshotError: the record cannot be read.
    """
    record = _read(folder / RECORD)
    names = {of["key"]: name for name, of in record.items()}
    found = []
    for each in plan:
        others = (f"{each.name}+{number}" for number in itertools.count(2))
        free = (name for name in (each.name, *itertools.islice(others, len(record) + 1)))
        name = names.get(each.key) or next(name for name in free if name not in record)
        record[name] = {"key": each.key, "args": list(each.args)}
        found.append(each._replace(name=name))
    if write:
        with atomic_write(folder / RECORD) as file:
            json.dump(record, file, indent=1)
    return found


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): {"key": of["key"], "args": of["args"]} for name, of in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise FewshotError(
            f"{file} is no record of a sweep; remove it, or set --folder to another folder"
        ) from error


def check_loggers(choices: Sequence[Choice], folder: Path) -> None:
    """Check that the loggers leave the runs in the folder of the sweep.

    Raises:
        FewshotError: the first is another class than the default, and was not told this folder.
    """
    is_named, place = False, None
    for choice in choices:
        for value in choice.values:
            if choice.plain == "config" and (logger := _logger(value)) is not None:
                is_named, place = True, (logger.get("init_args") or {}).get("save_dir")
            elif choice.plain == "trainer.logger":
                is_named, place = value not in ("true", "false", "null"), None
            elif choice.plain == "trainer.logger.save_dir":
                place = value
    if is_named and (place is None or Path(place).resolve() != folder.resolve()):
        raise FewshotError(
            f"trainer.logger puts the runs elsewhere than in {folder}; set"
            f" --trainer.logger.save_dir {folder}, or leave the logger out"
        )


def _logger(config: str) -> dict[str, Any] | None:
    """The first logger that a config names; None where it names none."""
    content = read_config(Path(config)) if Path(config).is_file() else {}
    for part in (content.get("fit"), content):
        trainer = part.get("trainer") if isinstance(part, dict) else None
        logger = trainer.get("logger") if isinstance(trainer, dict) else None
        logger = logger[0] if isinstance(logger, list) and logger else logger
        if isinstance(logger, str):
            return {"class_path": logger}
        if isinstance(logger, dict):
            return logger
    return None
