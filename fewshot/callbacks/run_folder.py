"""The folder of a run: where all of it lies, whatever logs it."""

import os
from itertools import count
from pathlib import Path

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from fewshot.errors import FewshotError
from fewshot.learners.lightning_internals import given_version, set_version

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints, in its own."""


class RunFolder(Callback):
    """Give a run its folder: the same on all ranks, for its checkpoints and what logs in files.

    It is settled on the first rank before the run begins. The others are told when the ranks can
    talk to each other.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        """None where the Trainer decides: on a remote file system, in a `fast_dev_run`."""
        self.checkpoint: str | None = None
        """The file that the run begins with."""

    def state_dict(self) -> dict[str, str | None]:
        """Whose a checkpoint is that lies in another folder than its run's."""
        return {"run": None if self.path is None else self.path.name}

    def settle(self, trainer: L.Trainer, path: Path) -> None:
        """Have this run write into `path`: on the first rank, before anything is written."""
        self._point(trainer, path)
        for logger in trainer.loggers:
            if isinstance(logger, CSVLogger):
                _keep(Path(logger.log_dir, "metrics.csv"))

    def _point(self, trainer: L.Trainer, path: Path) -> None:
        """Have the checkpoints and loggers of this rank write into `path`, or beside it."""
        self.path = path
        for logger in trainer.loggers:
            # what further loggers were told by name stands
            if isinstance(logger, TensorBoardLogger | CSVLogger) and (
                logger is trainer.loggers[0] or given_version(logger) is None
            ):
                set_version(logger, path.name)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
                callback.dirpath = str(path / CHECKPOINTS)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Tell all ranks.

        Raises:
            FewshotError: ranks that looked for the last checkpoint found different ones.
        """
        path, checkpoint = trainer.strategy.broadcast((self.path, self.checkpoint))
        if not trainer.strategy.reduce_boolean_decision(checkpoint == self.checkpoint):
            raise FewshotError(
                f"rank {trainer.global_rank} begins with {self.checkpoint}, the first with"
                f" {checkpoint}: another run wrote in between; give the run's folder as ckpt_path"
            )
        if path is not None and not trainer.is_global_zero:
            self._point(trainer, path)


def _keep(file: Path) -> None:
    """Move a file aside that Lightning's CSV logger would delete when a run goes on."""
    if file.exists():
        names = (file.with_name(f"{file.stem}-{n}{file.suffix}") for n in count(1))
        file.rename(next(name for name in names if not name.exists()))


def run_folder(trainer: L.Trainer) -> Path:
    """The folder of this run on this machine: what holds the folder of its checkpoints.

    Without checkpoints its logger's, or else the Trainer's root. The Trainer's own `log_dir` waits
    for all ranks; this may be asked for by one.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set from outside
        if isinstance(callback, RunFolder) and callback.path is not None:
            return callback.path
    checkpoints = getattr(trainer.checkpoint_callback, "dirpath", None)
    logger = trainer.logger
    if checkpoints is not None:
        found: str | None = os.path.dirname(checkpoints) or "."
        found = found if os.path.basename(checkpoints) == CHECKPOINTS else checkpoints
    elif isinstance(logger, TensorBoardLogger | CSVLogger):
        found = logger.log_dir
    else:
        found = None if logger is None else logger.save_dir
    places = (found, trainer.default_root_dir, os.getcwd())
    return Path(next(place for place in places if place and "://" not in place))
