"""Checkpoints: the best by the task's own metric, and the last."""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from fewshot.learners.base import MetaLearner


class BestCheckpoint(ModelCheckpoint):
    """Keep `best.ckpt`, the best on validation: by accuracy, for regression by the mean squared error."""

    def __init__(self) -> None:
        # At validation, not at the epoch's end: a run may be stopped before its first validation.
        super().__init__(filename="best", enable_version_counter=False, save_on_train_epoch_end=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the metric from the learner's task."""
        if isinstance(pl_module, MetaLearner):
            metric, self.mode = pl_module.task.monitor
            self.monitor = f"val/{metric}"
        super().setup(trainer, pl_module, stage)


class LastCheckpoint(ModelCheckpoint):
    """Keep `last.ckpt`, what the last epoch left: what training is resumed from.

    `ModelCheckpoint(save_last=True)` would renew it together with the best one only.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
