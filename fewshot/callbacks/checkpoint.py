"""Checkpoints: the best by the task's own metric, and the last."""

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from fewshot.learners.base import MetaLearner


class BestCheckpoint(ModelCheckpoint):
    """Keep the best checkpoint on validation (accuracy; for regression the mean squared error) and the last one.

    Args:
        every_n_train_steps: also save the last checkpoint every so many meta-steps; None: at validation alone.
    """

    def __init__(self) -> None:
        super().__init__(filename="best", save_last=True, enable_version_counter=False)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take the metric from the learner's task."""
        if isinstance(pl_module, MetaLearner):
            metric, self.mode = pl_module.task.monitor
            self.monitor = f"val/{metric}"
            self.best_model_score = None
        super().setup(trainer, pl_module, stage)
