"""Callbacks that disturb a run of their own process in the middle of a meta-step.

The command line takes them.
"""

import os
import random
import resource
import signal
import threading

import lightning as L


class SendsSignal(L.Callback):
    """Send a signal to one rank's own process when a meta-step has begun."""

    def __init__(self, number: int, step: int, rank: int = 0) -> None:
        self.number, self.step, self.rank = number, step, rank

    def on_train_batch_start(self, trainer: L.Trainer, *args: object) -> None:
        if (trainer.global_step, trainer.global_rank) == (self.step, self.rank):
            os.kill(os.getpid(), self.number)


class Kills(L.Callback):
    """Kill the process at a random moment of a meta-step; seconds of delay at most."""

    def __init__(self, step: int, delay: float) -> None:
        self.step, self.delay = step, random.SystemRandom().uniform(0, delay)

    def on_train_batch_start(self, trainer: L.Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            threading.Timer(self.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()


class SignalsEvaluation(L.Callback):
    """Send a signal to one rank's own process when a batch of a test or its like has ended.

    Args:
        number: the signal.
        batch: the number of the batch.
        rank: the rank that it is sent to.
        twice: send it once more at once.
    """

    def __init__(self, number: int, batch: int, rank: int = 0, twice: bool = False) -> None:
        self.number, self.batch, self.rank, self.twice = number, batch, rank, twice

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.seen = 0

    def _ended(self, trainer: L.Trainer) -> None:
        if trainer.state.fn == "fit":
            return
        if (self.seen, trainer.global_rank) == (self.batch, self.rank):
            for _ in range(1 + self.twice):
                os.kill(os.getpid(), self.number)
        self.seen += 1

    def on_test_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        self._ended(trainer)

    def on_validation_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        self._ended(trainer)

    def on_predict_batch_end(self, trainer: L.Trainer, *args: object) -> None:
        self._ended(trainer)


class FillsDisk(L.Callback):
    """From a meta-step, or the begin of a test or a prediction, let no file grow any more.

    The system says EFBIG where a disk says ENOSPC.

    Args:
        step: the meta-step; None: the begin of a test or a prediction.
        size: bytes that a file may have.
    """

    def __init__(self, step: int | None, size: int) -> None:
        self.step, self.size = step, size
        self.before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def _fill(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.before[1]))

    def on_train_batch_start(self, trainer: L.Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            self._fill()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.step is None:
            self._fill()

    on_predict_start = on_test_start

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self.before)
