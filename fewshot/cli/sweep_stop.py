"""The signals that ask a sweep for an end."""

import signal
from types import FrameType, TracebackType
from typing import Any

SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]


class Stop:
    """Notes the signals that ask for an end, for the time of a block.

    An exception in the middle of starting a process would lose sight of it.
    """

    def __init__(self) -> None:
        self.noted: list[int] = []
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Stop":
        heeded = [n for n in SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]  # as by nohup
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.noted.append(number)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def leave(self) -> None:
        """End the program as these signals do, where one was noted."""
        if signal.SIGINT in self.noted:
            raise KeyboardInterrupt
        if self.noted:
            raise SystemExit(128 + self.noted[0])
