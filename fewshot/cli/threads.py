"""What threads stumble over is told once, in the line that the program ends with."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from fewshot.files.room import is_without_room


@contextmanager
def full_disk_in_threads() -> Iterator[list[OSError]]:
    """Gives the errors of threads that had no room to write; their tracebacks are not printed.

    TensorBoard writes in a thread, which prints its traceback itself. It tells the run as well, but
    not where it is closed.
    """
    found: list[OSError] = []
    before = threading.excepthook

    def note(args: threading.ExceptHookArgs) -> None:
        if is_without_room(args.exc_value):
            found.append(args.exc_value)
        else:
            before(args)

    threading.excepthook = note
    try:
        yield found
    finally:
        threading.excepthook = before
