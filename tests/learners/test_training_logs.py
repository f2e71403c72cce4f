"""Which steps' figures are logged: those that somebody looks at."""

import csv
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger

from fewshot.backbones import MLP
from fewshot.datamodules import SinusoidDataModule
from fewshot.learners import MAML


class Counting(MAML):
    """Notes the steps whose loss is logged."""

    def __init__(self, *arguments: Any, **kwargs: Any) -> None:
        super().__init__(*arguments, **kwargs)
        self.logged: list[int] = []

    def log(self, name: str, *arguments: Any, **kwargs: Any) -> None:
        if name == "train/loss":
            self.logged.append(self.trainer.global_step)
        super().log(name, *arguments, **kwargs)


def fit(
    tmp_path: Path, bar: ProgressBar | None = None, logger: bool = False, **arguments: Any
) -> Counting:
    """A run of 8 steps an epoch, one epoch unless told otherwise."""
    data = SinusoidDataModule(
        shot=5,
        queries=5,
        meta_batch_size=2,
        train_episodes=16,
        val_episodes=2,
        test_episodes=2,
        seed=0,
    )
    torch.manual_seed(0)
    learner = Counting(MLP(1, (5,)), task=data.task)
    trainer = L.Trainer(
        accelerator="cpu", logger=CSVLogger(tmp_path, "", "") if logger else False, enable_model_summary=False,
        enable_progress_bar=bar is not None, enable_checkpointing=False, callbacks=[] if bar is None else [bar],
        **({"max_epochs": 1, "log_every_n_steps": 50} | arguments),
    )  # fmt: skip
    trainer.fit(learner, data)
    return learner


def losses(tmp_path: Path) -> dict[int, float]:
    """The training losses in the logger's file, by step."""
    with (tmp_path / "metrics.csv").open() as file:
        return {
            int(row["step"]): float(row["train/loss"])
            for row in csv.DictReader(file)
            if row["train/loss"]
        }


class Blind(ProgressBar):
    """One that does not say how often it is drawn, so that it may be at every step."""

    is_enabled = True

    def disable(self) -> None:
        """Asked of every bar."""

    def enable(self) -> None:
        """Asked of every bar."""


@pytest.mark.parametrize(
    ("bar", "arguments", "steps"),
    [
        (None, {}, [7]),
        (None, {"max_epochs": 2}, [7, 15]),
        (None, {"max_steps": 5}, [4]),
        (None, {"limit_train_batches": 3}, [2]),
        (None, {"log_every_n_steps": 3}, [2, 5, 7]),
        (None, {"log_every_n_steps": 1}, list(range(8))),
        (lambda: RichProgressBar(refresh_rate=3), {}, [2, 5, 7]),
        (lambda: TQDMProgressBar(refresh_rate=4), {"log_every_n_steps": 3}, [2, 3, 5, 7]),
        (lambda: TQDMProgressBar(refresh_rate=0), {}, [7]),
        (Blind, {}, list(range(8))),
    ],
)
def test_figures_are_logged_where_somebody_looks(
    bar: Any, arguments: dict[str, Any], steps: list[int], tmp_path: Path
) -> None:
    learner = fit(tmp_path, bar and bar(), **arguments)
    assert learner.logged == steps
    assert {"train/loss", "train/mse"} <= set(learner.trainer.callback_metrics), (
        "whoever asks after the training"
    )


def test_what_is_logged_is_that_steps(tmp_path: Path) -> None:
    fit(tmp_path / "all", logger=True, log_every_n_steps=1, max_epochs=2)
    fit(tmp_path / "some", logger=True, log_every_n_steps=3, max_epochs=2)
    every, some = losses(tmp_path / "all"), losses(tmp_path / "some")
    assert len(every) == 16
    assert sorted(some) == [2, 5, 8, 11, 14]
    assert all(some[step] == every[step] for step in some)
