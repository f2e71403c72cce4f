"""Files that are written whole or not at all.

Everything is written beside its place and renamed into it, so that a killed process leaves nothing
that a later one trusts.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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
