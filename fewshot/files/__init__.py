"""Files that are written whole or not at all.

Everything is written beside its place and renamed into it, so that a killed process leaves nothing
that a later one trusts. What it does leave, the next start removes (`fewshot.files.leftovers`).
"""

import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from fewshot.errors import FewshotError
from fewshot.files.leftovers import remove_leftovers, scratch_name
from fewshot.files.room import told_of

DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|stdout|stderr)")


@contextmanager
def scratch_folder(parent: Path, remedy: str = "set `root` to a folder of yours") -> Iterator[Path]:
    """A folder in `parent` for the time of the block.

    Raises:
        FewshotError: `parent` cannot be written into.
    """
    try:
        parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(parent)
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=scratch_name()))
    except OSError as error:
        raise FewshotError(f"cannot write into {parent} ({error}); {remedy}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def is_special(path: Path) -> bool:
    """Whether a device, a pipe or a socket is at `path`, which is written to, never replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    of_process = DESCRIPTOR.fullmatch(os.fspath(path)) is not None
    return of_process or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Where to write a file that appears at `path` when the block ends, complete, or not at all.

    Raises:
        FewshotError: there is something else than a file, or its folder cannot be written into.
        OSError: it cannot be written; its `filename` is `path`.
    """
    if is_special(path):
        raise FewshotError(f"{path} is a device or a pipe; name a file")
    target = _target(path)
    with scratch_folder(target.parent, "name a file in a folder of yours") as folder:
        beside = folder / path.name
        with told_of(path, beside):
            yield beside
            beside.replace(target)


@contextmanager
def atomic_write(path: Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A text or binary file to write: at the block's end it is at `path`, whole, or not at all.

    Of a link it is the target that is written. A device or a pipe is written to directly.

    Raises:
        OSError: it cannot be written; its `filename` is `path`.
    """
    mode, encoding, newline = ("wb", None, None) if binary else ("w", "utf-8", "")
    if is_special(path):
        with open(_opened(path), mode, encoding=encoding, newline=newline) as file:
            yield file
        return
    target = _target(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(target.parent)
    descriptor, beside = tempfile.mkstemp(dir=target.parent, prefix=scratch_name())
    try:
        with (
            told_of(path, beside),
            open(descriptor, mode, encoding=encoding, newline=newline) as file,
        ):
            yield file
            file.flush()
            os.fsync(descriptor)  # the content is on the disk before its name is
        os.chmod(beside, 0o666 & ~_umask())
        os.replace(beside, target)
    except BaseException:
        os.unlink(beside)
        raise


def _target(path: Path) -> Path:
    """Where a file of this name is: the end of the links that it may be."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def _opened(path: Path) -> str | int:
    """What to open for a device; of the process's own output a copy, which shares its place."""
    match = DESCRIPTOR.fullmatch(os.fspath(path))
    if match is None:
        return os.fspath(path)
    return os.dup(int(match[1] or (1 if path.name == "stdout" else 2)))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
