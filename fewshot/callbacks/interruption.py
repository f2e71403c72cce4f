"""Stop signals act between two meta-steps: nothing is lost, all ranks stop at the same step."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fewshot.learners.lightning_internals import (
    cluster_environment,
    stop_after_this_step,
    validation_follows,
)

Handler = Callable[[int, FrameType | None], Any]


class Interruption(Callback):
    """Let SIGINT, SIGTERM and SLURM's requeue signal stop a run after the current meta-step.

    Lightning's handlers act at once, at another step on each rank and with weights that may be half
    updated. Here the ranks agree, the step is finished and logged (in a validation: that, and a
    step), `LastCheckpoint` writes `last.ckpt`, and the program ends with the shell's status, 128
    and the number of the signal. The requeue signal has Lightning call `scontrol requeue` too. A
    second SIGINT stops at once. Signals outside of training are Lightning's.
    """

    def __init__(self) -> None:
        self._noted = 0  # the signal that this rank has received
        self._acting = 0  # the signal that all ranks stop for
        self._requeue: tuple[int, Handler] | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over; the Trainer gives them back when it is done."""
        self._noted, self._acting, self._requeue = 0, 0, None
        if threading.current_thread() is not threading.main_thread():
            return  # others receive no signals
        numbers = [signal.SIGINT, signal.SIGTERM]
        environment = cluster_environment(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            assert environment.requeue_signal is not None  # but on Windows
            handler = signal.getsignal(environment.requeue_signal)
            assert callable(handler)
            self._requeue = environment.requeue_signal, handler
            numbers.append(environment.requeue_signal)
        for number in numbers:
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._noted == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = number
        if number == signal.SIGINT:
            print(
                "\nstopping after this meta-step; Ctrl-C once more stops at once",
                file=sys.stderr,
                flush=True,
            )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Have the Trainer stop at the end of the step if any rank has received a signal."""
        self._acting = self._noted
        if trainer.world_size > 1:  # else an accelerator would be waited for at every step
            noted = torch.tensor(self._noted, device=trainer.strategy.root_device)
            self._acting = int(trainer.strategy.reduce(noted, reduce_op="max"))
        if not validation_follows(trainer):  # it would stop in the middle
            self._stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same, where a validation belongs to the step."""
        self._stop(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if self._acting:
            stop_after_this_step(trainer)

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the exit status, and the job back to SLURM."""
        if self._acting and isinstance(exception, SIGTERMException):
            exception.code = 128 + self._acting
            if self._requeue is not None and self._requeue[0] == self._acting:
                self._requeue[1](self._acting, None)
