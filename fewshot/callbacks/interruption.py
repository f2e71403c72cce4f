"""Stop signals act between two meta-steps, or two batches of a test: nothing done is lost.

All ranks stop at the same one.
"""

import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import SIGTERMException

from fewshot.learners.lightning_internals import (
    cluster_environment,
    stop_after_this_step,
    validation_follows,
)

Handler = Callable[[int, FrameType | None], Any]


class Interruption(Callback):
    """Let SIGINT, SIGTERM and SLURM's requeue signal stop a run after what is under way.

    Lightning's handlers act at once, at another step on each rank and with weights that may be half
    updated. Here the ranks agree, the meta-step is finished and logged (in a validation: that, and
    a step), `LastCheckpoint` writes `last.ckpt`, and the program ends with the shell's status, 128
    and the number of the signal. The requeue signal has Lightning call `scontrol requeue` too.

    A test, a validation by itself and a prediction end after the meta-batch under way: what was
    evaluated so far is logged and written, the results say that they are partial, and the status is
    the same. There, the requeue signal is Lightning's. A second SIGINT stops at once.

    Attributes:
        partial: whether a signal has cut the last test, validation or prediction short.
    """

    def __init__(self) -> None:
        self.partial = False
        self._noted = 0  # the signal that this rank has received
        self._acting = 0  # the signal that all ranks stop for
        self._requeue: tuple[int, Handler] | None = None
        self._begun = 0  # batches of the evaluation
        self._common = 0.0  # batches of it that every rank has

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over; the Trainer gives them back when it is done."""
        self._requeue = None
        environment = cluster_environment(trainer)
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            assert environment.requeue_signal is not None  # but on Windows
            handler = signal.getsignal(environment.requeue_signal)
            if callable(handler):
                self._requeue = environment.requeue_signal, handler
        self._take_over(trainer, "meta-step")

    def _take_over(self, trainer: L.Trainer, unit: str) -> None:
        # one that came while the run was set up is Lightning's to note
        self._noted, self._acting = signal.SIGTERM if trainer.received_sigterm else 0, 0
        self._unit = unit
        if threading.current_thread() is not threading.main_thread():
            return  # others receive no signals
        requeue = [self._requeue[0]] if self._requeue else []
        for number in (signal.SIGINT, signal.SIGTERM, *requeue):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == self._noted == signal.SIGINT:
            raise KeyboardInterrupt
        self._noted = number
        if number == signal.SIGINT:
            print(
                f"\nstopping after this {self._unit}; Ctrl-C once more stops at once",
                file=sys.stderr,
                flush=True,
            )

    def _agree(self, trainer: L.Trainer) -> None:
        """Have all ranks stop for a signal that any has received."""
        self._acting = self._noted
        if trainer.world_size > 1:  # else an accelerator would be waited for at every step
            noted = torch.tensor(self._noted, device=trainer.strategy.root_device)
            self._acting = int(trainer.strategy.reduce(noted, reduce_op="max"))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any
    ) -> None:
        """Have the Trainer stop at the end of the step if any rank has received a signal."""
        self._agree(trainer)
        if not validation_follows(trainer):  # it would stop in the middle
            self._stop(trainer)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same, where a validation belongs to the step."""
        if trainer.state.fn == TrainerFn.FITTING:
            self._stop(trainer)
        else:
            self._end_evaluation(trainer)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Heed a signal that came after the last step, so that no test follows."""
        self._agree(trainer)

    def _stop(self, trainer: L.Trainer) -> None:
        if self._acting:
            stop_after_this_step(trainer)

    # ------------------------------------------------------------------ tests and their like

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals over."""
        self._begin_evaluation(trainer, trainer.num_test_batches)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same, where nothing is trained."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._begin_evaluation(trainer, trainer.num_val_batches)

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same."""
        self._begin_evaluation(trainer, trainer.num_predict_batches)

    def _begin_evaluation(self, trainer: L.Trainer, batches: Sequence[int | float]) -> None:
        self._requeue, self.partial, self._begun = None, False, 0
        self._batches = self._common = float(sum(batches))
        if trainer.world_size > 1:  # a rank that has ended would be waited for
            mine = torch.tensor(self._batches, device=trainer.strategy.root_device)
            self._common = float(trainer.strategy.reduce(mine, reduce_op="min"))
        self._take_over(trainer, "meta-batch")

    def on_test_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """End the test before this meta-batch if any rank has received a signal."""
        if 0 < self._begun < self._common:  # of one at least there are results
            self._agree(trainer)
            if self._acting:
                self.partial = True
                raise StopIteration  # Lightning's loop takes it for the end of the data
        self._begun += 1

    def on_validation_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """The same, where nothing is trained."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.on_test_batch_start(trainer, pl_module, *args, **kwargs)

    def on_predict_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """The same."""
        self.on_test_batch_start(trainer, pl_module, *args, **kwargs)

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say how far it came."""
        self._end_evaluation(trainer)

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same."""
        self._end_evaluation(trainer)

    def _end_evaluation(self, trainer: L.Trainer) -> None:
        self._agree(trainer)
        if self.partial:
            self._tell()

    @rank_zero_only
    def _tell(self) -> None:
        name = signal.Signals(self._acting).name
        print(
            f"stopped by {name} after {self._begun} of {self._batches:g} meta-batches; what is"
            " written is of these alone",
            file=sys.stderr,
            flush=True,
        )

    # ------------------------------------------------------------------ the end

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """End the program where a signal has come and all is written."""
        if self._acting:
            raise SIGTERMException

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Give the exit status, and the job back to SLURM."""
        if isinstance(exception, SIGTERMException):
            # before training or a test began, Lightning alone has noted one
            exception.code = 128 + (self._acting or signal.SIGTERM)
            if self._requeue is not None and self._requeue[0] == self._acting:
                self._requeue[1](self._acting, None)


def is_partial(trainer: L.Trainer) -> bool:
    """Whether a signal has cut the last test, validation or prediction short."""
    callbacks: Sequence[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(one, Interruption) and one.partial for one in callbacks)
