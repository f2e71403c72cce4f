"""Folders and locks that are one process's alone."""

import os
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fewshot.errors import FewshotError


def claimed_folder(parents: Sequence[Path], names: Iterable[str]) -> str:
    """Make a folder of the first of `names` that is new in all of `parents`, in each of them.

    To make it is to have it: of processes that ask at the same moment each gets another.

    Returns:
        The name.

    Raises:
        FewshotError: the parents cannot be written into.
    """
    for name in names:
        made: list[Path] = []
        try:
            for parent in parents:
                parent.mkdir(parents=True, exist_ok=True)
                (parent / name).mkdir()
                made.append(parent / name)
        except OSError as error:
            for folder in made:
                folder.rmdir()
            if not isinstance(error, FileExistsError) or not parent.is_dir():
                raise FewshotError(
                    f"cannot make the run's folder {parent / name} ({error.strerror}); set"
                    " trainer.default_root_dir to a folder of yours"
                ) from error
        else:
            return name
    raise AssertionError("there is always another number")


_OURS: set[Path] = set()
_GUARD = threading.Lock()


@contextmanager
def lock_of_one(path: Path) -> Iterator[bool]:
    """Whether this block alone, of all processes and threads, has the lock `path` until its end.

    The system ends it with the process, however that ends, and no process that is forked from this
    one keeps it: a killed one may be followed at once. The file is there as long as it is locked,
    or until the next one takes it.
    """
    path = path.resolve()
    with _GUARD:  # the system's locks tell processes apart, not threads
        taken = path in _OURS
        descriptor = None if taken else _locked(path)
        if descriptor is not None:
            _OURS.add(path)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            with _GUARD:
                _OURS.discard(path)
                with suppress(OSError):
                    path.unlink()
                os.close(descriptor)


def _locked(path: Path) -> int | None:
    """An open file that is locked; None where another process has it locked."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor)
            if os.path.exists(path) and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except (BlockingIOError, PermissionError):  # what POSIX allows for "it is locked"
            os.close(descriptor)
            return None
        except OSError as error:
            warnings.warn(
                f"{path} cannot be locked ({error.strerror}): no second process is kept from going"
                " on with the same run",
                stacklevel=2,
            )
            return descriptor
        os.close(descriptor)  # the one before was about to remove it


def _lock(descriptor: int) -> None:
    """Lock a file, or raise OSError at once."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        # not flock, which a forked worker would keep
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
