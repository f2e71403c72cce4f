"""Training goes on from a checkpoint with the settings that it began with, or not at all."""

from collections.abc import Mapping
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import BaseFinetuning, Callback, LearningRateFinder
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info

from fewshot.learners.lightning_internals import (
    attached_trainer,
    is_of_a_tuner,
    tell_loggers_the_right_step,
)
from fewshot.learners.meta_step import MetaStep
from fewshot.learners.settings import check_settings, held_settings, settings
from fewshot.learners.trainer_checks import check_going_on


class GoesOn(L.LightningModule):
    """Mix-in: checkpoints hold a training's settings, and going on is checked against them."""

    _began: Mapping[str, Any] = {}
    """Of the checkpoint that the coming training goes on from."""
    _settings: Mapping[str, Any] = {}
    """Of the training under way, what only its beginning said among them."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what made the checkpoint, where training goes on from it."""
        trainer = attached_trainer(self)
        training = trainer is not None and trainer.state.fn == TrainerFn.FITTING
        if trainer is not None and training and not is_of_a_tuner(trainer):
            check_going_on(trainer)
            self._began = held_settings(checkpoint)
            if "settings" not in checkpoint.get("fewshot", {}):
                rank_zero_info(
                    "the checkpoint is of an earlier version, which did not write its settings"
                    " down: give the same data, seed and optimizer as then"
                )
        super().on_load_checkpoint(checkpoint)

    def on_fit_start(self) -> None:
        """Refuse to go on with other settings; follow what callbacks have changed."""
        super().on_fit_start()
        self._follow_callbacks()
        # asked for anew, the optimizer is as no callback has changed it
        benchmark = getattr(self.trainer, "datamodule", None)
        now = settings(self, self.configure_optimizers(), benchmark, self.trainer)
        began, self._began = self._began, {}
        check_settings(began, now)
        self._settings = {**began, **now}

    def on_train_epoch_start(self) -> None:
        """Correct the step that loggers are told.

        lightning 2.6 adds one when it resumes from the end of an epoch.
        """
        super().on_train_epoch_start()
        tell_loggers_the_right_step(self.trainer)

    def _follow_callbacks(self) -> None:
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        if any(isinstance(callback, LearningRateFinder) for callback in callbacks):
            # so that a schedule begins at the learning rate that was found, too
            self.trainer.strategy.setup_optimizers(self.trainer)
        if any(isinstance(callback, BaseFinetuning) for callback in callbacks):
            # Lightning freezes again what a resumed run had begun to train
            for optimizer in self.trainer.optimizers:
                for group in optimizer.param_groups:
                    for parameter in group["params"]:
                        parameter.requires_grad_(True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write the settings down."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["fewshot"]["settings"] = dict(self._began or self._settings)

    def check_goes_on(
        self, checkpoint: Mapping[str, Any], benchmark: Any, trainer: L.Trainer
    ) -> None:
        """The same before the Trainer does anything, for what is known then.

        An optimizer that a learner makes in a way of its own may need the Trainer: it waits.

        Raises:
            FewshotError: naming all settings that differ, with both values.
        """
        plain = type(self).configure_optimizers is MetaStep.configure_optimizers
        made = self.configure_optimizers() if plain else None
        check_settings(held_settings(checkpoint), settings(self, made, benchmark, trainer))
