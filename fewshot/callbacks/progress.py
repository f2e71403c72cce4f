"""The progress bar: loss, accuracy and episodes a second.

And which steps' figures somebody takes.
"""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar

from fewshot.episodes.types import Examples, count


def is_drawn(bar: ProgressBar | None, batch_idx: int) -> bool:
    """Whether a progress bar is drawn anew at the end of a training step.

    One that does not say may be.
    """
    if bar is None or not getattr(bar, "is_enabled", True):
        return False
    return (batch_idx + 1) % int(getattr(bar, "refresh_rate", 1)) == 0


def is_looked_at(trainer: L.Trainer, batch_idx: int) -> bool:
    """Whether a training step's figures are logged or shown, or the training or its epoch ends.

    At others they need not be logged, which with two figures would take 0.7 ms: a sixth of a step
    of a small network.
    """
    return (
        bool(trainer._logger_connector.should_update_logs)  # as Lightning's own callbacks ask
        or is_drawn(trainer.progress_bar_callback, batch_idx)
        or trainer.is_last_batch
        or trainer.global_step + 1 == trainer.max_steps
    )


class EpisodeProgressBar(RichProgressBar):
    """Lightning's Rich progress bar, with training episodes (or plain examples) a second.

    The rate is over all ranks.

    Args:
        refresh_rate: steps between two refreshes of the bar.
    """

    def __init__(self, refresh_rate: int = 10) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=False)
        self._since = time.perf_counter()
        self._episodes, self._name = 0, "episodes"

    def on_train_epoch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Start the clock anew, so that validation is not counted."""
        super().on_train_epoch_start(trainer, *args)
        self._since, self._episodes = time.perf_counter(), 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the episodes, or the plain examples, of the step.

        Draw the bar anew where it is time to.
        """
        self._episodes += count(batch) * trainer.world_size
        self._name = "examples" if isinstance(batch, Examples) else "episodes"
        # Lightning's reads the figures at every step, which waits for an accelerator
        if is_drawn(self, batch_idx) or trainer.is_last_batch:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """The logged metrics and the episodes a second."""
        metrics: dict[str, Any] = {
            k: v for k, v in super().get_metrics(trainer, pl_module).items() if k != "v_num"
        }
        if self._episodes:
            metrics[f"{self._name}/s"] = (
                f"{self._episodes / (time.perf_counter() - self._since):.1f}"
            )
        return metrics
