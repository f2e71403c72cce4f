"""Train every learner in a process of its own, killed at a random moment of a random meta-step.

`killed.py FOLDER` leaves what each run had written in ``FOLDER/<learner>``: its last checkpoint and
``rows.jsonl``.
"""

import json
import os
import random
import signal
import sys
import threading
import warnings
from argparse import Namespace
from pathlib import Path
from typing import Any

import lightning as L
import torch
from every_learner import ACTING, TRAINED, pair
from lightning.pytorch.loggers.logger import Logger
from torch import Tensor

from fewshot.callbacks.checkpoint import LastCheckpoint

STEPS = 12


class Rows(Logger):
    """Writes each logged value down at once, as a line of JSON: its step, its name and itself."""

    name, version = "rows", 0

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.file = root / "rows.jsonl"

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        with self.file.open("a") as file:
            file.writelines(
                json.dumps([step, name, value]) + "\n" for name, value in metrics.items()
            )

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        pass


def rows(root: Path) -> dict[tuple[int, str], float]:
    """The logged values of a run by step and name; a value that was logged twice was the same."""
    found: dict[tuple[int, str], float] = {}
    for line in (root / "rows.jsonl").read_text().splitlines():
        step, name, value = json.loads(line)
        assert found.setdefault((step, name), value) == value, (step, name)
    return found


def train(
    name: str, root: Path, *callbacks: L.Callback, resume: Path | None = None, **arguments: Any
) -> dict[str, Tensor]:
    """Train for `STEPS` meta-steps with a validation in the middle and at the end of each epoch.

    Gives the weights.
    """
    root.mkdir(parents=True, exist_ok=True)
    # a resumed learner must not depend on its own beginning
    learner, benchmark = pair(
        name, seed=0 if resume is None else 1, train_episodes=24, val_episodes=3
    )
    trainer = L.Trainer(
        accelerator="cpu",
        logger=Rows(root),
        log_every_n_steps=1,
        val_check_interval=0.5,
        callbacks=[*callbacks, LastCheckpoint(every_n_steps=3)],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=root,
        **({"max_steps": STEPS} | arguments),
    )
    trainer.fit(learner, benchmark, ckpt_path=resume)
    return {key: value.detach().clone() for key, value in learner.state_dict().items()}


class Killer(L.Callback):
    """Kill the process a moment after a meta-step has begun."""

    def __init__(self, step: int, delay: float) -> None:
        self.step, self.delay = step, delay

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    for name in [*TRAINED, *ACTING]:
        if child := os.fork():
            _, status = os.waitpid(child, 0)
            assert os.WIFSIGNALED(status), f"{name} was done before it was killed"
            assert os.WTERMSIG(status) == signal.SIGKILL
        else:
            train(
                name,
                Path(sys.argv[1]) / name,
                Killer(random.randint(4, STEPS - 4), random.uniform(0, 0.005)),
            )
            os._exit(0)
