"""Whose callbacks see each training step's figures, and that nobody pays for them otherwise."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    TQDMProgressBar,
)
from torch import Tensor

from fewshot import MLP, Reptile, SinusoidDataModule
from fewshot.callbacks.progress import EpisodeProgressBar
from fewshot.callbacks.throughput import Throughput
from fewshot.learners import MAML, MetaLearner
from fewshot.learners.cadence import reads_each_step

STEPS = 6


class Record(Callback):
    """What a callback is handed after each training step, and what it can read of it."""

    def __init__(self) -> None:
        self.handed: list[Tensor] = []
        self.read: list[float] = []

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.handed.append(outputs["loss"])
        self.read.append(float(trainer.callback_metrics["train/loss"]))


def train(learner: MetaLearner, data: Any, *callbacks: Callback, root: Path) -> L.Trainer:
    trainer = L.Trainer(
        max_steps=STEPS,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        default_root_dir=root,
    )
    trainer.fit(learner, data)
    return trainer


@pytest.mark.parametrize("learner", [MAML, Reptile])
def test_ones_own_callback_gets_every_steps_loss(
    learner: type[MetaLearner], tmp_path: Path
) -> None:
    data = SinusoidDataModule(train_episodes=STEPS * 2, meta_batch_size=2)
    record = Record()
    losses: list[float] = []
    model = learner(MLP(1, [4]), task=data.task)
    run = model.training_outcomes

    def outcomes(batch: Any) -> Any:
        parts = []
        for outcome in run(batch):
            parts.append(outcome.loss.detach())
            yield outcome
        losses.append(float(torch.cat(parts).mean()))

    model.training_outcomes = outcomes  # type: ignore[method-assign]
    train(model, data, record, root=tmp_path)
    assert len(losses) == STEPS
    assert len(set(losses)) > 1, "a stale figure would not be seen"
    assert [float(loss) for loss in record.handed] == pytest.approx(losses)
    assert record.read == pytest.approx(losses)
    assert not any(loss.requires_grad for loss in record.handed)


def test_without_such_a_callback_figures_are_logged_where_they_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = SinusoidDataModule(train_episodes=STEPS * 2, meta_batch_size=2)
    model = MAML(MLP(1, [4]), task=data.task)
    logged: list[str] = []
    monkeypatch.setattr(model, "log", lambda name, *args, **kwargs: logged.append(name))
    train(model, data, Throughput(), root=tmp_path)
    assert logged.count("train/loss") == 1, "after the last step alone"


class StepStart(Callback):
    def on_train_batch_start(self, *args: Any) -> None: ...


class EpochEnd(Callback):
    def on_train_epoch_end(self, *args: Any) -> None: ...


@pytest.mark.parametrize(
    ("callback", "reads"),
    [
        (Record(), True),
        (StepStart(), True),
        (EpochEnd(), False),
        (type("OwnBar", (TQDMProgressBar,), {"__module__": "mine"})(), True),
        (LambdaCallback(on_train_batch_end=lambda *args: None), True),
        (LambdaCallback(on_train_epoch_end=lambda *args: None), False),
        (ModelCheckpoint(monitor="train/loss", every_n_train_steps=1), True),
        (ModelCheckpoint(filename="{step}-{train/loss:.2f}"), True),
        (ModelCheckpoint(monitor="val/loss"), False),
        (ModelCheckpoint(), False),
        (EarlyStopping("val/loss"), False),
        (LearningRateMonitor(), False),
        (TQDMProgressBar(), False),
        (EpisodeProgressBar(), False),
        (Throughput(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_callbacks_may_read_every_step(callback: Callback, reads: bool) -> None:
    assert reads_each_step(callback) is reads
