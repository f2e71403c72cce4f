"""Whether the files that something was made of are still the same.

A fingerprint goes into the name or the index of whatever is kept of files: so a cache answers for
the files that it was made from, and for nothing else.
"""

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from fewshot.errors import FewshotError


def fingerprint_of(files: Iterable[Path], root: Path, *made_by: object) -> str:
    """A digest of the files' places below `root`, their sizes and the times of their last change.

    It is the same after a move or a copy that keeps the times (``cp -p``, ``rsync -a``), and
    another one when a file is changed, replaced, added or removed. No file is read.

    Args:
        files: files, and folders of which all visible files are meant, however deep.
        root: what places are told from.
        *made_by: what else decides what is made of them, such as a version of the code.

    Raises:
        FewshotError: a file is not there or cannot be looked at.
    """
    digest = hashlib.sha256(repr(made_by).encode())
    before = os.path.join(root, "")
    try:
        for path in files:
            for place, size, time in _states(os.fspath(path), set()):
                name = place.removeprefix(before).replace(os.sep, "/")
                digest.update(os.fsencode(f"{name} {size} {time}\n"))
    except OSError as error:
        raise FewshotError(
            f"{error.filename} cannot be looked at ({error.strerror}); correct the data's root, or"
            " its access rights"
        ) from error
    return digest.hexdigest()


def _states(path: str, above: set[tuple[int, int]]) -> Iterator[tuple[str, int, int]]:
    """Each file's path, size in bytes and time of change in ns.

    Args:
        path: a file or a folder.
        above: the folders that it is in, so that a link to one of them does not lead round.
    """
    state = os.stat(path)
    if not stat.S_ISDIR(state.st_mode):
        yield path, state.st_size, state.st_mtime_ns
        return
    if (place := (state.st_dev, state.st_ino)) in above:
        return
    with os.scandir(path) as entries:
        visible = sorted((e for e in entries if e.name[0] != "."), key=lambda entry: entry.name)
    for entry in visible:
        if entry.is_dir():
            yield from _states(entry.path, above | {place})
        else:
            state = entry.stat()
            yield entry.path, state.st_size, state.st_mtime_ns
