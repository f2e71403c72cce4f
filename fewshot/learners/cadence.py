"""Which training steps' figures somebody takes."""

import lightning as L
from lightning.pytorch.callbacks import ProgressBar

from fewshot.learners.lightning_internals import logger_takes_step


def is_drawn(bar: ProgressBar | None, batch_idx: int) -> bool:
    """Whether a progress bar is redrawn after a training step; one that does not say may be."""
    if bar is None or not getattr(bar, "is_enabled", True):
        return False
    return (batch_idx + 1) % int(getattr(bar, "refresh_rate", 1)) == 0


def should_log(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a logger or the progress bar takes a step's figures, or it ends training or an epoch.

    At others they need not be logged, which with two figures would take 0.7 ms: a sixth of a step
    of a small network.
    """
    return (
        logger_takes_step(trainer)
        or is_drawn(trainer.progress_bar_callback, batch_idx)
        or trainer.is_last_batch
        or trainer.global_step + 1 == trainer.max_steps
    )
