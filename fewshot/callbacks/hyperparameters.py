"""What TensorBoard's HPARAMS compares runs by, and the config as a text."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard import summary

from fewshot.callbacks.board import log_text, markdown
from fewshot.callbacks.run_folder import run_folder
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.learners.base import MetaLearner
from fewshot.learners.lightning_internals import file_writer

OF_BENCHMARK = ("queries", "train_way", "train_shot", "meta_batch_size", "seed")
"""Arguments of a benchmark that runs are told apart by, besides way and shot."""


class Hyperparameters(Callback):
    """Give every run of TensorBoard one row in HPARAMS, and its config in TEXT.

    A row has the learner, the benchmark, its sizes, the outer rate, the backbone and each plain
    argument of the learner; then each chart's last value, as of the best of the validations so far
    (`best/...`, a chart too) and of the test. Runs of other learners and benchmarks stand in one
    table.
    """

    # TensorBoard takes the columns of all rows from the first run that states columns, so that none
    # does. It begins with those that differ, and then goes by the alphabet, capitals first; it
    # shows five.

    def __init__(self) -> None:
        self._told: list[TensorBoardLogger] = []
        self._ended: list[TensorBoardLogger] = []
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

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write that the run has succeeded; what is killed is one that runs."""
        self._end()

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same where nothing is trained."""
        self._end()

    def _tell(self, trainer: L.Trainer, learner: L.LightningModule) -> None:
        if not isinstance(learner, MetaLearner):
            return
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and logger not in self._told:
                self._told.append(logger)
                _, start, _ = _summaries(row(trainer, learner))
                file_writer(logger).add_summary(start)
                log_text(logger, "config", config(trainer, learner), trainer.global_step)

    def _end(self) -> None:
        for logger in self._told:
            if logger not in self._ended:
                self._ended.append(logger)
                _, _, end = _summaries({})
                file_writer(logger).add_summary(end)


def _summaries(values: dict[str, int | float | str]) -> tuple[Any, Any, Any]:
    """TensorBoard's records of the columns, of a run's start, and of its success."""
    found: tuple[Any, Any, Any] = summary.hparams(values, {})  # type: ignore[no-untyped-call]
    return found


def config(trainer: L.Trainer, learner: MetaLearner) -> str:
    """The run's config.yaml as Markdown; what a run from Python has in place of it."""
    file = run_folder(trainer) / "config.yaml"
    if not file.exists():
        return markdown(("argument", "value"), row(trainer, learner).items())
    return "\n".join(f"    {line}" for line in file.read_text().splitlines())


def row(trainer: L.Trainer, learner: MetaLearner) -> dict[str, int | float | str]:
    """What a run is told apart by, plain values alone."""
    data = getattr(trainer, "datamodule", None)
    found: dict[str, Any] = {"Learner": type(learner).__name__}
    if isinstance(data, EpisodicDataModule):
        found["Benchmark"] = data.benchmark or type(data).__name__
        sizes = {"Way": getattr(data, "way", None), "Shot": getattr(data, "shot", None)}
        # as text: TensorBoard writes the number 5 as 5.0000
        found |= {name: str(size) for name, size in sizes.items() if size is not None}
    for optimizer in trainer.optimizers[:1]:
        group = optimizer.param_groups[0]
        found["Outer lr"] = float(group.get("initial_lr", group["lr"]))
        found["optimizer"] = type(optimizer).__name__
    found["backbone"] = type(learner.backbone).__name__
    if isinstance(data, EpisodicDataModule):
        found |= {name: getattr(data, name, None) for name in OF_BENCHMARK}
    found["max_epochs"] = trainer.max_epochs
    found |= {name: value for name, value in learner.hparams.items() if name not in found}
    # a truth too, which would be 1.0000
    found |= {name: str(value).lower() for name, value in found.items() if isinstance(value, bool)}
    return {name: value for name, value in found.items() if isinstance(value, int | float | str)}
