"""Files that are written whole or not at all, folders and locks that are one process's alone.

Everything is written beside its place and renamed into it, so that a killed process leaves nothing
that a later one trusts.
"""

import os
import shutil
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from fewshot.errors import FewshotError


@contextmanager
def scratch_folder(
    parent: Path, prefix: str, remedy: str = "set `root` to a folder of yours"
) -> Iterator[Path]:
    """A folder in `parent` for the time of the block.

    Raises:
        FewshotError: `parent` cannot be written into.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
    except OSError as error:
        raise FewshotError(f"cannot write into {parent} ({error}); {remedy}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Where to write a file that appears at `path` when the block ends, complete, or not at all."""
    with scratch_folder(
        path.parent, f".{path.name}-", "name a file in a folder of yours"
    ) as folder:
        yield folder / path.name
        (folder / path.name).replace(path)


@contextmanager
def atomic_write(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A text or binary file to write: at the block's end it is at `path`, whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        kind = ("wb", None, None) if binary else ("w", "utf-8", "")
        with open(descriptor, kind[0], encoding=kind[1], newline=kind[2]) as file:
            yield file
            file.flush()
            os.fsync(descriptor)  # the content is on the disk before its name is
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, path)
    except BaseException:
        os.unlink(beside)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
