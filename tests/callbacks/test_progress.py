"""What the progress bar shows."""

import importlib
import io
import logging
import re
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import lightning as L
import pytest
import torch
from commands import FEW, SINUSOID
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import CustomProgress
from rich.console import Console

import fewshot
from fewshot.callbacks import progress
from fewshot.callbacks.memorisation import Figures, Memorisation
from fewshot.callbacks.progress import EpisodeProgressBar, _Figures
from fewshot.cli.main import main
from fewshot.episodes.types import Episode, Examples


def meta_batch(episodes: int) -> Episode:
    part = Examples(torch.zeros(episodes, 2, 1), torch.zeros(episodes, 2))
    return Episode(part, part)


def test_the_bar_shows_metrics_and_episodes_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = cast(
        L.Trainer,
        SimpleNamespace(
            world_size=2, is_last_batch=False, callbacks=[], current_epoch=0, max_epochs=2
        ),
    )
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
        cast(
            L.Trainer,
            SimpleNamespace(
                world_size=2, is_last_batch=True, callbacks=[], current_epoch=0, max_epochs=2
            ),
        ),
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


def test_without_a_terminal_a_run_says_what_it_does_and_a_line_an_epoch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    flags = ("--trainer.max_epochs=2", "--trainer.accelerator=cpu", "--trainer.devices=1")
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *SINUSOID, *FEW, *flags, root]) == 0
    said = capsys.readouterr()
    first, second, third, *rest = said.out.splitlines()
    assert first == "MAML with MLP: 1,761 parameters, all trained"
    assert second.startswith("Sinusoid: 10-shot")
    assert second.endswith("episodes: 8 train, 2 val, 3 test")
    assert third == "trains for 2 epochs on cpu, 32-true"
    lines = [line for line in rest if line.startswith("epoch ")]
    number = r"\d+\.\d+"
    for line, epoch in zip(lines, ("1/2", "2/2"), strict=True):
        assert re.match(rf"epoch {epoch}: loss {number}, .*val {number}.* episodes/s, ", line), line
        assert len(line) <= 80
    assert rest[-1].startswith("tensorboard: "), "results come last"
    for vain in (
        "FLOPs",
        "Testing",
        "Sanity",
        "Seed set",
        "GPU available",
        "Restoring",
        "stopped:",
    ):
        assert vain not in said.out + said.err, vain


@pytest.mark.parametrize("widgets", [True, False])
def test_in_a_notebook_the_bar_is_a_widget_or_a_line_an_epoch(
    widgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rich would draw nothing without ipywidgets, and warn each time."""
    console = Console(file=io.StringIO(), force_jupyter=True)
    monkeypatch.setattr(progress, "Console", lambda: console)
    monkeypatch.setattr(progress, "find_spec", lambda name: name if widgets else None)
    bar = EpisodeProgressBar()
    trainer = cast(L.Trainer, SimpleNamespace(is_global_zero=True))
    bar.setup(trainer, cast(L.LightningModule, None), "fit")
    assert (bar.is_enabled, bar._lines) == (widgets, not widgets)


def test_importing_in_a_notebook_without_widgets_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.reload(fewshot)  # puts its filter before those at hand
        warnings.warn("IProgress not found. Please update jupyter and ipywidgets.", stacklevel=1)
    assert caught == []


def test_a_bar_takes_one_line_of_80_columns() -> None:
    """With the figures of a learner that reports most, in epochs of many steps."""
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    bar = EpisodeProgressBar()
    bar.epoch = "epoch 100/100"
    bar.shown = {"train/loss": 0.12345, "train/accuracy": 0.9, "val/accuracy": 0.5}
    bar.shown |= {"episodes/s": "12345.6", "unadapted": 0.2}
    columns = [*bar.configure_columns(cast(L.Trainer, None)), _Figures(bar)]
    bar.progress = progress = CustomProgress(*columns, console=console)
    bar.train_progress_bar_id = progress.add_task("Epoch 99/99", total=10_000, completed=9_999)
    console.print(progress.get_renderable())
    (line,) = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(line) <= 80
    assert line.startswith("epoch 100/100 ")
    assert "loss 0.123 accuracy" in line
