"""Validation source by source, for benchmarks of several."""

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from fewshot.callbacks.results import source_estimates
from fewshot.datamodules.sources import SourcesDataModule
from fewshot.learners.base import MetaLearner


class SourceCurves(Callback):
    """Log each metric's mean over each source's validation episodes, as `val/accuracy on dtd`."""

    # After the learner's own `on_validation_epoch_end`, which makes the table.
    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send them to the logger."""
        datamodule = getattr(trainer, "datamodule", None)
        if (
            trainer.sanity_checking
            or trainer.logger is None
            or not isinstance(pl_module, MetaLearner)
        ):
            return
        if isinstance(datamodule, SourcesDataModule):
            found = source_estimates(datamodule, pl_module, "val")
            means = {
                f"val/{m} on {source}": value.mean
                for source, of in found.items()
                for m, value in of.items()
            }
            trainer.logger.log_metrics(means, step=trainer.global_step)
