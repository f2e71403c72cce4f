"""Errors of writing that say which file was being written, a full disk's among them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""A full disk, a quota that is used up, a limit of the size of files."""


def is_without_room(error: BaseException | None) -> TypeGuard[OSError]:
    """Whether an error says that nothing more can be written."""
    return isinstance(error, OSError) and error.errno in NO_ROOM


@contextmanager
def told_of(path: Path, *besides: str | Path) -> Iterator[None]:
    """Have errors in the block that name no file, or one of `besides`, name `path`."""
    try:
        yield
    except OSError as error:
        if error.filename is None or str(error.filename) in map(str, besides):
            error.filename = str(path)
        raise
