"""What is shown of an evaluation: its first episode, and what the benchmark calls its classes."""

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import Episode, MetaBatch


class FirstEpisode(Callback):
    """Keeps the first episode of every test; of validations too where a subclass asks for it."""

    def __init__(self) -> None:
        self.first: Episode | None = None
        self.number = -1  # of that episode; -1 where it has none

    def on_test_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: MetaBatch,
        batch_idx: int,
        *args: Any,
    ) -> None:
        """Keep the first episode."""
        self.keep(batch, batch_idx)

    def keep(self, batch: MetaBatch, batch_idx: int) -> None:
        """Keep the first episode of an evaluation's first meta-batch."""
        if batch_idx == 0:
            found = MetaBatch.of(batch)
            self.first = next(found.singles())
            self.number = -1 if found.numbers is None else int(found.numbers[0])

    def class_names(self, trainer: L.Trainer, stage: Stage) -> tuple[str, ...] | None:
        """The names of that episode's classes by label; None where the benchmark has none."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(data, EpisodicDataModule) or self.number < 0:
            return None
        found = data.class_names(stage, [self.number])
        return found[self.number] if found else None
