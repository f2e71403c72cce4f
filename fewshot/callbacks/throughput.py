"""How many episodes a second training and evaluation handle, in TensorBoard."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from fewshot.episodes.types import as_batch


class Throughput(Callback):
    """Log episodes a second over all ranks.

    `train/episodes_per_second` for each epoch, `test/episodes_per_second` for a test.

    The first step of an epoch or a test is left out, in which compilers, caches and workers get
    going; so are the validations inside of an epoch. For a learner that trains on plain examples,
    read examples for episodes in training.
    """

    def __init__(self) -> None:
        self._episodes, self._seconds = 0, 0.0
        self._since: float | None = None  # None: the clock stands still

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]  # the state of a new one

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count what was trained on since the clock runs; the first step starts it."""
        self._count(trainer, as_batch(batch).size)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop the clock."""
        self._stop()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let it go on."""
        self._since = time.perf_counter() if self._seconds else None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the epoch's speed."""
        self._log(pl_module, "train")

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]

    def on_test_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count what was tested since the clock runs; the first meta-batch starts it."""
        self._count(trainer, as_batch(batch).size)

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the test's speed."""
        self._log(pl_module, "test")

    def _count(self, trainer: L.Trainer, size: int) -> None:
        if self._since is None:
            self._since = time.perf_counter()
        else:
            self._episodes += size * trainer.world_size

    def _stop(self) -> None:
        if self._since is not None:
            self._seconds += time.perf_counter() - self._since
            self._since = None

    def _log(self, learner: L.LightningModule, stage: str) -> None:
        self._stop()
        if self._episodes:
            rate = self._episodes / self._seconds
            # batch_size: else Lightning asks the batch before which a signal ended a test
            learner.log(f"{stage}/episodes_per_second", rate, rank_zero_only=True, batch_size=1)
