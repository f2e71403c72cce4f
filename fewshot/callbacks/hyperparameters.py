"""What TensorBoard's HPARAMS compares runs by, and the config as a text."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams

from fewshot.callbacks.run_folder import run_folder
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.learners.base import MetaLearner

OF_BENCHMARK = ("way", "shot", "queries", "train_way", "train_shot", "meta_batch_size", "seed")
"""Arguments of a benchmark that runs are told apart by."""


class Hyperparameters(Callback):
    """Give every run of TensorBoard one row in HPARAMS, and its config in TEXT.

    A row has the learner, the backbone, the benchmark, its sizes, the outer rate and each plain
    argument of the learner; then the best of the validations so far (`best/...`, a chart too) and
    the test's figure.
    """

    def __init__(self) -> None:
        self._told: list[TensorBoardLogger] = []
        self._best: float | None = None

    def state_dict(self) -> dict[str, float | None]:
        """The best so far, which a run that goes on may not come to again."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up."""
        self._best = state_dict["best"]

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the row, which is filled by later figures."""
        self._tell(trainer, pl_module)

    @rank_zero_only
    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same where nothing is trained."""
        self._tell(trainer, pl_module)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the best validation so far."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if not isinstance(pl_module, MetaLearner):
            return
        metric, mode = pl_module.task.monitor
        now = pl_module.estimates["val"][metric].mean
        if self._best is None or (now > self._best if mode == "max" else now < self._best):
            self._best = now
        for logger in trainer.loggers:
            logger.log_metrics({f"best/val_{metric}": self._best}, trainer.global_step)

    def _tell(self, trainer: L.Trainer, learner: L.LightningModule) -> None:
        if not isinstance(learner, MetaLearner):
            return
        metric = learner.task.monitor[0]
        figures = {f"best/val_{metric}": 0.0, f"test/{metric}": 0.0}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and logger not in self._told:
                self._told.append(logger)
                summaries = hparams(row(trainer, learner), figures)  # type: ignore[no-untyped-call]
                for summary in summaries:
                    logger.experiment.file_writer.add_summary(summary)
                config = run_folder(trainer) / "config.yaml"
                if config.exists():
                    text = "\n".join(f"    {line}" for line in config.read_text().splitlines())
                    logger.experiment.add_text("config", text)


def row(trainer: L.Trainer, learner: MetaLearner) -> dict[str, bool | int | float | str]:
    """What a run is told apart by, plain values alone."""
    data = getattr(trainer, "datamodule", None)
    found: dict[str, Any] = {
        "learner": type(learner).__name__,
        "backbone": type(learner.backbone).__name__,
    }
    if isinstance(data, EpisodicDataModule):
        found["benchmark"] = data.benchmark or type(data).__name__
        found |= {name: getattr(data, name, None) for name in OF_BENCHMARK}
    for optimizer in trainer.optimizers[:1]:
        group = optimizer.param_groups[0]
        found["lr"] = float(group.get("initial_lr", group["lr"]))
        found["optimizer"] = type(optimizer).__name__
    found["max_epochs"] = trainer.max_epochs
    found |= {name: value for name, value in learner.hparams.items() if name not in found}
    return {
        name: value for name, value in found.items() if isinstance(value, bool | int | float | str)
    }
