"""The progress bar: loss, accuracy and episodes a second.

And which steps' figures somebody takes.
"""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import RichProgressBar

from fewshot.callbacks.memorisation import figures_of
from fewshot.episodes.types import as_batch
from fewshot.learners.cadence import is_drawn


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
        trained = as_batch(batch)
        self._episodes += trained.size * trainer.world_size
        self._name = trained.unit
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
        memorisation = figures_of(trainer).get("memorisation", {})
        if memorisation.get("unadapted") is not None:
            metrics["unadapted"] = memorisation["unadapted"]
        return metrics
