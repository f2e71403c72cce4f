"""What goes wrong in processes that draw episodes, told in one line when somebody listens."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from torch.utils.data import DataLoader

from fewshot.errors import FewshotError

Item = TypeVar("Item")
_END = object()


def translate_worker_errors(batches: DataLoader[Item]) -> Iterator[Item]:
    """The batches of a DataLoader.

    What goes wrong in a worker is told in one line, without its traceback.

    Raises:
        FewshotError: a worker raised one or could not read a file, was killed, or gave nothing in
            time.
    """
    try:
        iterator = iter(batches)
        _DEATHS.take_over()
        while True:
            with _DEATHS.may_be_told():
                batch: Any = next(iterator, _END)
            if batch is _END:
                return
            yield batch
    except (FewshotError, RuntimeError, OSError, EOFError) as error:
        _DEATHS.silence()
        if batches.num_workers and (message := _of_a_worker(error)):
            raise FewshotError(message) from error
        raise


def _of_a_worker(error: Exception) -> str | None:
    """What an error of a DataLoader with workers means; None for a mistake of the program's."""
    text = str(error)
    if raised := re.search(
        r"^Caught \w+ in DataLoader worker.*\n[\w.]*?(\w+): (.*)", text, re.DOTALL
    ):
        mistake = not isinstance(error, FewshotError | OSError)
        return None if mistake else " ".join(raised.group(2).split())
    if late := re.search(r"DataLoader timed out after ([\d.]+) seconds", text):
        return (
            f"no meta-batch came from the processes that draw episodes in {late.group(1)} s; see"
            " whether the disk with the data answers, raise data.worker_timeout, or set"
            " data.num_workers to 0"
        )
    cut = isinstance(error, OSError | EOFError)  # a batch was on its way when the worker died
    if cut:
        _DEATHS.settle()
    if cut or re.search(r"DataLoader worker \(.*\) (is killed|exited)", text):
        return (
            "a process that draws episodes ended from outside"
            f" ({text.splitlines()[0] if text else 'no answer'}), often because memory ran out;"
            " lower data.num_workers, or set it to 0"
        )
    return None


class _Deaths:
    """Keeps torch's notice of a dead worker for the moments when a batch is waited for.

    Torch raises it out of a signal handler, at whatever instruction the process is: in the middle
    of a training step, or of what handles the broken connection that the same death has left.
    """

    def __init__(self) -> None:
        self._waiting = False
        self._missed: RuntimeError | None = None
        self._handler: Any = None  # torch's, which raises once for each death

    def take_over(self) -> None:
        """Stand before torch's handler, which the first DataLoader with workers has set."""
        if (
            self._handler
            or not hasattr(signal, "SIGCHLD")
            or threading.current_thread() != threading.main_thread()
        ):
            return
        if callable(handler := signal.getsignal(signal.SIGCHLD)):
            self._handler = handler
            signal.signal(signal.SIGCHLD, self._on_a_childs_end)

    @contextmanager
    def may_be_told(self) -> Iterator[None]:
        """A moment at which a death is raised, one that was missed before it included."""
        try:
            self._waiting = True
            if missed := self._missed:
                self._missed = None
                raise missed
            yield
        finally:
            self._waiting = False

    def silence(self) -> None:
        """End such a moment, wherever in it the notice came."""
        self._waiting = False

    def settle(self, seconds: float = 1) -> None:
        """Wait for the notice of a death that is known already, and drop it."""
        end = time.monotonic() + seconds
        while self._handler and not self._missed and time.monotonic() < end:
            time.sleep(0.01)
        self._missed = None

    def _on_a_childs_end(self, signum: int, frame: FrameType | None) -> None:
        try:
            self._handler(signum, frame)
        except RuntimeError as death:
            if self._waiting:
                raise
            self._missed = death


_DEATHS = _Deaths()  # one for the process, as its signals are
