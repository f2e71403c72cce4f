"""The checkpoint that `--ckpt_path` means: a file, `best`, `last`, or the folder of a run."""

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.utilities import rank_zero_only

from fewshot.callbacks.places import Place, runs_holding
from fewshot.callbacks.run_folder import CHECKPOINTS, RunFolder
from fewshot.errors import FewshotError
from fewshot.files.claims import lock_of_one
from fewshot.learners.checkpoints import read_checkpoint

SHOWN = 5  # candidates in a message


class Beginning(NamedTuple):
    """What a command begins with."""

    checkpoint: str | None
    """The file, or a word of Lightning's."""
    run: Path | None = None
    """The folder of the run that it belongs to, where it was found by that."""


def beginning(
    asked: str | None, file: str, config: Mapping[str, Any], place: Callable[[], Place | None]
) -> Beginning:
    """What `--ckpt_path` means.

    Args:
        asked: what it says.
        file: the checkpoint that is meant by the folder of a run.
        config: of the subcommand.
        place: where this command's runs lie; asked for if needed.

    Raises:
        FewshotError: there is no such checkpoint, or it cannot be told which of several is meant.
    """
    if asked is None:
        return Beginning(None)
    if Path(asked, CHECKPOINTS).is_dir() or Path(asked, "config.yaml").is_file():
        found = Path(asked, CHECKPOINTS, file)
        if not found.is_file():
            raise FewshotError(f"the run {asked} has no {file}; give another, or a file")
        return Beginning(str(found), Path(asked))
    if asked not in ("best", "last"):
        return Beginning(asked)
    where = place()
    if where is None:
        raise FewshotError(
            f"ckpt_path is {asked!r}, but runs on other machines are not looked through; give the"
            " checkpoint's address"
        )
    return _newest(asked, where, config)


def _newest(word: str, place: Place, config: Mapping[str, Any]) -> Beginning:
    """The checkpoint `word` that was written last of those that a command's runs have written."""
    file = f"{word}.ckpt"
    runs: dict[Path, Path | None] = {path: run for run, path in place.holding(file).items()}
    for folder in _dirpaths(config):
        # Lightning's callback appends -v1, -v2, ... where there is one already
        runs |= {
            path: _owner(path, place)
            for path in folder.glob(f"{word}*.ckpt")
            if re.fullmatch(rf"{word}(-v\d+)?", path.stem)
        }
    if not runs:
        others = runs_holding(place.root, file)
        remedy = f"; give one of them: {_listed(others)}" if others else "; give its path"
        which = f" by the name {place.names.stem}" if others else ""
        raise FewshotError(
            f"ckpt_path is {word!r}, but no run below {place.root}{which} has a {file}{remedy}"
        )
    times = {path: path.stat().st_mtime_ns for path in runs}
    newest = [path for path, time in times.items() if time == max(times.values())]
    if len(newest) > 1:
        raise FewshotError(
            f"ckpt_path is {word!r}, but several were written at the same moment; give one of"
            f" them: {_listed(runs[path] or path for path in newest)}"
        )
    return Beginning(str(newest[0]), runs[newest[0]])


def _dirpaths(config: Mapping[str, Any]) -> list[Path]:
    """The folders that the user's own checkpoint callbacks write into."""
    callbacks = config["trainer"]["callbacks"] or []
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    given = [(callback.get("init_args") or {}).get("dirpath") for callback in callbacks]
    return [Path(folder) for folder in given if folder]


def _owner(path: Path, place: Place) -> Path | None:
    """The run that wrote a checkpoint into another folder than its own; None if that is gone."""
    name = read_checkpoint(path).get("callbacks", {}).get(RunFolder.__name__, {}).get("run")
    run = place.root / str(name)
    return run if name and run.is_dir() and place.has(run) else None


def _listed(candidates: Iterable[Path]) -> str:
    named = [str(path) for path in candidates]
    more = f" (and {len(named) - SHOWN} more)" if len(named) > SHOWN else ""
    return f"--ckpt_path {', '.join(named[:SHOWN])}{more}"


def is_first_rank() -> bool:
    """Whether this process is the first rank, as far as can be known before there is a Trainer."""
    rank = getattr(rank_zero_only, "rank", 0)  # set from outside
    return rank == 0 and LightningEnvironment().node_rank() == 0


def hold(run: Path, held: ExitStack) -> None:
    """Keep other processes from going on with a run until `held` is closed.

    The lock lies beside the run's folder: what is in a folder is the run's.

    Raises:
        FewshotError: another process has the run.
    """
    if not held.enter_context(lock_of_one(run.with_name(f".{run.name}.lock"))):
        others = [other for other in runs_holding(run.parent, "last.ckpt") if other != run]
        another = f", or go on with another: {_listed(others)}" if others else ""
        raise FewshotError(
            f"the run {run} is under way in another process; wait until it has ended{another}"
        )
