"""Which training steps' figures somebody takes."""

import lightning as L
from lightning.pytorch.callbacks import Callback, ModelCheckpoint, ProgressBar

from fewshot.learners.lightning_internals import logger_takes_step

STEP_HOOKS = (
    "on_train_batch_start",
    "on_before_zero_grad",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_train_batch_end",
)
"""Where a callback is called in every training step."""
KNOWN = ("fewshot", "lightning", "pytorch_lightning")
"""Whose callbacks read no training figures between those steps that loggers and bars take."""


def reads_each_step(callback: Callback) -> bool:
    """Whether a callback may read a training step's figures, whichever step it is.

    One of the user's own may, where it is called in every step. Lightning's read them for a
    checkpoint that is chosen or named by them.
    """
    if (
        isinstance(callback, ModelCheckpoint)
        and "train/" in f"{callback.monitor}{callback.filename}"
    ):
        return True
    cls = type(callback)
    own = cls.__module__.partition(".")[0] not in KNOWN
    # a LambdaCallback has the user's functions for its methods
    return any(
        hook in vars(callback) or (own and getattr(cls, hook) is not getattr(Callback, hook))
        for hook in STEP_HOOKS
    )


def is_drawn(bar: ProgressBar | None, batch_idx: int) -> bool:
    """Whether a progress bar is redrawn after a training step; one that does not say may be."""
    if bar is None or not getattr(bar, "is_enabled", True):
        return False
    return (batch_idx + 1) % int(getattr(bar, "refresh_rate", 1)) == 0


def should_log(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a logger, the progress bar or a callback of the user's may take a step's figures.

    Or it ends training or an epoch. At other steps they need not be logged, which with two figures
    would take 0.7 ms: a sixth of a step of a small network.
    """
    return (
        logger_takes_step(trainer)
        or is_drawn(trainer.progress_bar_callback, batch_idx)
        or trainer.is_last_batch
        or trainer.global_step + 1 == trainer.max_steps
        or any(map(reads_each_step, trainer.callbacks))  # type: ignore[attr-defined]
    )
