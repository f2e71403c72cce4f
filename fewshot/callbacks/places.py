"""Where runs lie: the folder that holds theirs, and names that no two of them get."""

import os
import re
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from fewshot.callbacks.run_folder import CHECKPOINTS
from fewshot.errors import FewshotError
from fewshot.files.claims import claimed_folder
from fewshot.learners.lightning_internals import experiment_name, given_version

LIGHTNINGS = "version"
"""The `run_name` that gives Lightning's own names, `version_0`, `version_1`, ..."""
RUNS = "lightning_logs"


class Names(NamedTuple):
    """The names of a command's runs: a stem and a number."""

    stem: str
    joint: str = "-"
    bare: bool = False
    """Whether the first is the stem alone."""

    def number(self, name: str) -> int | None:
        """The number in the name of a folder; None where it is none of these."""
        if self.bare and name == self.stem:
            return 0
        match = re.fullmatch(rf"{re.escape(self.stem + self.joint)}(\d+)", name)
        return int(match.group(1)) if match else None

    def after(self, taken: Sequence[str]) -> Iterator[str]:
        """The names that follow those taken."""
        numbers = [number for name in taken if (number := self.number(name)) is not None]
        for number in count(max(numbers, default=-1) + 1):
            yield self.stem if self.bare and not number else f"{self.stem}{self.joint}{number}"


class Place(NamedTuple):
    """Where a command's runs lie: the folder that holds theirs, and those of further loggers."""

    root: Path
    beside: tuple[Path, ...]
    names: Names

    def claim(self) -> Path:
        """Make a folder for a run, which no other command gets."""
        taken = os.listdir(self.root) if self.root.is_dir() else []
        return self.root / claimed_folder((self.root, *self.beside), self.names.after(taken))

    def holding(self, file: str) -> dict[Path, Path]:
        """The runs whose checkpoints' folder has `file`, with that file."""
        return {run: path for run, path in runs_holding(self.root, file).items() if self.has(run)}

    def has(self, run: Path) -> bool:
        """Whether a folder is that of one of this command's runs."""
        return self.holds(run) and self.names.number(run.name) is not None

    def holds(self, run: Path) -> bool:
        """Whether a folder that exists lies where this command's runs do, whatever its name."""
        return self.root.is_dir() and run.parent.samefile(self.root)


def runs_holding(root: Path, file: str) -> dict[Path, Path]:
    """The runs of any command whose folders lie in `root` and have the checkpoint `file`."""
    return {path.parents[1]: path for path in sorted(root.glob(f"*/{CHECKPOINTS}/{file}"))}


def place_for(loggers: Sequence[Logger], root: str, names: Names) -> Place | None:
    """Where runs with these loggers lie.

    The first logger decides, as it does for Lightning: `save_dir/name`, the project or experiment
    of a service; without one it is `lightning_logs` below `root`, the Trainer's.

    Returns:
        None where that is no folder of this machine.
    """
    folders = [_holder(logger, root) for logger in loggers[:1]] or [os.path.join(root, RUNS)]
    folders += [_holder(logger, root) for logger in loggers[1:] if _is_free(logger)]
    if any("://" in folder for folder in folders):
        return None
    paths = dict.fromkeys(Path(os.path.expanduser(os.path.expandvars(f))) for f in folders)
    first, *others = paths
    return Place(first, tuple(others), names)


def _holder(logger: Logger, root: str) -> str:
    """The folder that holds the folders of a logger's runs."""
    if isinstance(logger, TensorBoardLogger | CSVLogger):
        return str(logger.root_dir)
    if isinstance(logger, MLFlowLogger):  # reads every folder in its `save_dir` as its own
        store = logger.save_dir
        return os.path.join(os.path.dirname(store) if store else root, experiment_name(logger))
    return os.path.join(logger.save_dir or root, str(logger.name or RUNS))


def _is_free(logger: Logger) -> bool:
    """Whether a logger writes into a folder whose name it was not told."""
    return isinstance(logger, TensorBoardLogger | CSVLogger) and given_version(logger) is None


def names_for(asked: str | None, stem: str, loggers: Sequence[Logger]) -> Names:
    """What runs are called.

    Args:
        asked: the `run_name` that is asked for; None: `stem`.
        stem: what a run is called by what it is.
        loggers: the first may have been told a version.

    Raises:
        FewshotError: the name is none for a folder, or there are two.
    """
    first = loggers[0] if loggers else None
    version = given_version(first) if isinstance(first, TensorBoardLogger | CSVLogger) else None
    if version is not None:
        if asked is not None:
            raise FewshotError(
                f"run_name is {asked!r} and the logger's version {version!r}; leave one out"
            )
        return Names(version, bare=True)
    if asked is None:
        return Names(stem)
    if not re.fullmatch(r"\w[\w.+=-]*", asked):
        raise FewshotError(
            f"run_name is {asked!r}; give the name of a folder: letters, digits and . _ - + ="
        )
    return Names(asked, "_" if asked == LIGHTNINGS else "-")


def stem_of(learner: str, benchmark: str, way: object = None, shot: object = None) -> str:
    """What a run is called by what it is: learner, benchmark, way and shot.

    >>> stem_of("MAML", "CIFAR-FS", 5, 1)
    'maml-cifarfs-5way1shot'
    """
    sizes = {"way": way, "shot": shot}
    task = "".join(f"{value}{name}" for name, value in sizes.items() if isinstance(value, int))
    parts = (re.sub(r"[^a-z0-9]", "", part.lower()) for part in (learner, benchmark, task))
    return "-".join(filter(None, parts))
