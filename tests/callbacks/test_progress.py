"""What the progress bar shows."""

import time
from types import SimpleNamespace
from typing import cast

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import RichProgressBar

from fewshot.callbacks.memorisation import Figures, Memorisation
from fewshot.callbacks.progress import EpisodeProgressBar
from fewshot.episodes.types import Episode, Examples


def meta_batch(episodes: int) -> Episode:
    part = Examples(torch.zeros(episodes, 2, 1), torch.zeros(episodes, 2))
    return Episode(part, part)


def test_the_bar_shows_metrics_and_episodes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = cast(L.Trainer, SimpleNamespace(world_size=2, is_last_batch=False, callbacks=[]))
    learner = cast(L.LightningModule, None)
    logged = {"train/loss": 1.5, "train/accuracy": 0.5, "v_num": 0}
    monkeypatch.setattr(RichProgressBar, "get_metrics", lambda *_: dict(logged))
    for hook in ("on_train_epoch_start", "on_train_batch_end"):
        monkeypatch.setattr(RichProgressBar, hook, lambda *_: None)
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    bar = EpisodeProgressBar()
    bar.on_train_epoch_start(trainer)
    assert "episodes/s" not in bar.get_metrics(trainer, learner), "nothing is done yet"
    now[0] += 4.0
    for index in range(3):
        bar.on_train_batch_end(trainer, learner, None, meta_batch(4), index)
    shown = bar.get_metrics(trainer, learner)
    # 3 steps of 2 x 4 in 4 s
    assert shown == {"train/loss": 1.5, "train/accuracy": 0.5, "episodes/s": "6.0"}
    now[0] += 100.0  # a validation
    bar.on_train_epoch_start(trainer)
    now[0] += 1.0
    bar.on_train_batch_end(trainer, learner, None, meta_batch(4), 0)
    assert bar.get_metrics(trainer, learner)["episodes/s"] == "8.0", (
        "the clock starts anew with every epoch"
    )


def test_plain_examples_are_counted_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer, learner = (
        cast(L.Trainer, SimpleNamespace(world_size=2, is_last_batch=True, callbacks=[])),
        cast(L.LightningModule, None),
    )
    monkeypatch.setattr(RichProgressBar, "get_metrics", lambda *_: {})
    for hook in ("on_train_epoch_start", "on_train_batch_end"):
        monkeypatch.setattr(RichProgressBar, hook, lambda *_: None)
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    bar = EpisodeProgressBar()
    bar.on_train_epoch_start(trainer)
    now[0] += 4.0
    bar.on_train_batch_end(trainer, learner, None, Examples(torch.zeros(10, 1), torch.zeros(10)), 0)
    assert bar.get_metrics(trainer, learner) == {"examples/s": "5.0"}


def test_the_bar_is_drawn_anew_at_its_rate_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's own would read the figures at every step, which waits for an accelerator."""
    drawn: list[int] = []
    monkeypatch.setattr(
        RichProgressBar, "on_train_batch_end", lambda *arguments: drawn.append(arguments[-1])
    )
    for rate, steps in ((3, [2, 5, 7]), (1, list(range(8))), (0, [7])):
        drawn.clear()
        bar = EpisodeProgressBar(refresh_rate=rate)
        for index in range(8):
            trainer = cast(L.Trainer, SimpleNamespace(world_size=1, is_last_batch=index == 7))
            bar.on_train_batch_end(
                trainer, cast(L.LightningModule, None), None, meta_batch(2), index
            )
        assert drawn == steps, "a rate of 0 draws none, and Lightning's own does nothing then"


def test_the_bar_shows_what_is_answered_without_a_support() -> None:
    memorisation = Memorisation()
    memorisation.figures = Figures("accuracy", 1.0, 0.4, 0.93, 0.2, 0.1, 8)
    bar, learner = EpisodeProgressBar(), L.LightningModule()
    namespace = SimpleNamespace(
        world_size=1, is_last_batch=False, callbacks=[memorisation], progress_bar_metrics={}, loggers=[]
    )  # fmt: skip
    assert bar.get_metrics(cast(L.Trainer, namespace), learner)["unadapted"] == 0.93
