"""Episodes a second: counted without the first step and without validation."""

import time
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fewshot.callbacks.throughput import Throughput
from fewshot.episodes.types import Episode, Examples

BATCH = Episode(*(Examples(torch.zeros(5, 2, 1), torch.zeros(5, 2)) for _ in range(2)))


class Log(SimpleNamespace):
    """A learner that only takes notes."""

    def log(self, name: str, value: float, **kwargs: Any) -> None:
        setattr(self, name, value)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time that passes only where a test says so."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(time, "perf_counter", lambda: now.seconds)
    return now


@pytest.mark.parametrize("validation_after", [0, 1])
def test_training(clock: SimpleNamespace, validation_after: int) -> None:
    watch, learner, trainer = Throughput(), Log(), SimpleNamespace(world_size=2)
    for epoch in range(2):
        watch.on_train_epoch_start(trainer, learner)  # type: ignore[arg-type]
        for step in range(3):
            clock.seconds += 50 if step == 0 else 2
            watch.on_train_batch_end(trainer, learner, None, BATCH, step)  # type: ignore[arg-type]
            if step == validation_after:
                watch.on_validation_start(trainer, learner)  # type: ignore[arg-type]
                clock.seconds += 1000
                watch.on_validation_end(trainer, learner)  # type: ignore[arg-type]
        watch.on_train_epoch_end(trainer, learner)  # type: ignore[arg-type]
        # two steps of 5 episodes on 2 ranks in 2 s each
        assert vars(learner) == {"train/episodes_per_second": pytest.approx(5)}, epoch


def test_testing(clock: SimpleNamespace) -> None:
    watch, learner, trainer = Throughput(), Log(), SimpleNamespace(world_size=1)
    watch.on_test_epoch_start(trainer, learner)  # type: ignore[arg-type]
    for step in range(3):
        clock.seconds += 10
        watch.on_test_batch_end(trainer, learner, None, BATCH, step)  # type: ignore[arg-type]
    watch.on_test_epoch_end(trainer, learner)  # type: ignore[arg-type]
    assert vars(learner) == {"test/episodes_per_second": pytest.approx(0.5)}


def test_one_step_says_nothing(clock: SimpleNamespace) -> None:
    watch, learner, trainer = Throughput(), Log(), SimpleNamespace(world_size=1)
    watch.on_test_epoch_start(trainer, learner)  # type: ignore[arg-type]
    watch.on_test_batch_end(trainer, learner, None, BATCH, 0)  # type: ignore[arg-type]
    watch.on_test_epoch_end(trainer, learner)  # type: ignore[arg-type]
    assert vars(learner) == {}
