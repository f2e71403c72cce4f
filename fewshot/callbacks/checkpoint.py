"""Checkpoints: the best by the task's own metric, and the last, which training goes on from."""

import os
import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.lightning_internals import (
    validation_follows,
    write_checkpoint,
)


class BestCheckpoint(ModelCheckpoint):
    """Keep `best.ckpt`, best on validation: by accuracy, or mean squared error for regression."""

    def __init__(self) -> None:
        # At validation, not at the epoch's end: a run may be stopped before its first validation.
        super().__init__(
            filename="best", enable_version_counter=False, save_on_train_epoch_end=False
        )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the metric from the learner's task."""
        if isinstance(pl_module, MetaLearner):
            metric, self.mode = pl_module.task.monitor
            self.monitor = f"val/{metric}"
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember the best so far, also when training resumes in another folder.

        Lightning would forget it there.
        """
        if os.path.isfile(state_dict["best_model_path"]):
            state_dict = {**state_dict, "dirpath": self.dirpath}
        super().load_state_dict(state_dict)


class LastCheckpoint(ModelCheckpoint):
    """Keep `last.ckpt`, which training resumes from: written at epoch ends and on a stop signal.

    `ModelCheckpoint(save_last=True)` would renew it together with the best one only, and its clock
    stands still where optimization is manual.

    Args:
        every_n_steps: write it after every so many meta-steps too.
        every_minutes: write it as soon as so many minutes have passed, too.

    Raises:
        FewshotError: one of them is not positive.
    """

    def __init__(
        self, every_n_steps: int | None = None, every_minutes: float | None = None
    ) -> None:
        super().__init__(
            filename="last", enable_version_counter=False, save_on_train_epoch_end=True
        )
        for name, value in (("every_n_steps", every_n_steps), ("every_minutes", every_minutes)):
            if value is not None and not value > 0:
                raise FewshotError(f"{name} is {value}; set it > 0, or leave it out")
        self.every_n_steps, self.every_minutes = every_n_steps, every_minutes
        self._due = False
        self._written_at, self._written_step = 0.0, 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._written_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Write it after a step if it is time; where a validation follows, after that."""
        self._due = self._due or self._is_time(trainer)
        # a run that went on from here would leave it out
        if self._due and not validation_follows(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it after a validation in the middle of an epoch if it was time before."""
        if self._due and not trainer.is_last_batch:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it at the end of every epoch."""
        self._save(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write it when a signal has stopped training between two steps.

        Other errors leave the one before.
        """
        training = trainer.state.fn == TrainerFn.FITTING and not trainer.validating
        stopped = isinstance(exception, SIGTERMException) and training
        if stopped and self._written_step != trainer.global_step:
            self._save(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take nothing from the run before: this one writes into its own folder."""

    def _is_time(self, trainer: L.Trainer) -> bool:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            return True
        if self.every_minutes is None:
            return False
        passed = time.monotonic() - self._written_at >= 60 * self.every_minutes
        return bool(trainer.strategy.broadcast(passed))  # the first rank's clock counts

    def _save(self, trainer: L.Trainer) -> None:
        self._due, self._written_at = False, time.monotonic()
        # set by the Trainer from outside
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._written_step = trainer.global_step
            write_checkpoint(self, trainer)
