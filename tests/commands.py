"""The command line in-process, on runs of a few steps."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fewshot.cli.main import main

SINUSOID = (
    "--model",
    "MAML",
    "--model.backbone",
    "MLP",
    "--data",
    "SinusoidDataModule",
    "--data.meta_batch_size=4",
)
"""The fastest pair of a learner and a benchmark."""

FEW = ("--data.train_episodes=8", "--data.val_episodes=2", "--data.test_episodes=3")
QUIET = (
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.num_sanity_val_steps=0",
)


@contextmanager
def undrawn() -> Iterator[None]:
    """Pictures are made, but blank and small: for runs whose files are meant, not what they show.

    Drawing and writing them is a third of a run of two steps.
    """

    def blank(make: Callable[[], Any], dpi: float) -> Any:
        return None if make() is None else np.full((8, 8, 3), 255, np.uint8)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fewshot.callbacks.figures._drawn", blank)
        yield


def fewshot(command: str, root: Path, *args: str, drawn: bool = False) -> Path:
    """Run a command that must succeed, quietly, on few episodes.

    Gives the run's folder (`root`: the Trainer's), whose pictures are blank unless `drawn`.
    """
    before = runs(root)
    with nullcontext() if drawn else undrawn():
        assert main([command, *args, *FEW, *QUIET, f"--trainer.default_root_dir={root}"]) == 0
    (run,) = runs(root) - before or {root}
    return run


def fit(root: Path, *args: str, drawn: bool = False) -> Path:
    """`fewshot fit` for an epoch of two steps, unless `args` say otherwise."""
    return fewshot(
        "fit",
        root,
        *args,
        *(() if any("max_" in arg for arg in args) else ("--trainer.max_epochs=1",)),
        drawn=drawn,
    )


def runs(root: Path) -> set[Path]:
    """The run folders below a Trainer's root."""
    return {path for path in (root / "lightning_logs").glob("[!.]*") if path.is_dir()}


def results(run: Path) -> dict[str, Any]:
    """The content of a run's results.json."""
    content = json.loads((run / "results.json").read_text())
    assert isinstance(content, dict)
    return content
