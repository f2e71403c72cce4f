"""Where data and caches lie, and which caches living processes use."""

import atexit
import functools
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

from fewshot.files.leftovers import is_left, remove_leftovers, scratch_name

IN_USE = ".in_use"
"""The folder in the data root with a file of each process: the caches that it uses, a line each."""


def data_root(root: str | os.PathLike[str] | None) -> Path:
    """The data root: the argument, else ``$FEWSHOT_DATA``, else the user's cache folder."""
    if root is not None:
        return Path(root).expanduser()
    return Path(
        os.environ.get("FEWSHOT_DATA") or platformdirs.user_cache_dir("fewshot")
    ).expanduser()


def use_cache(place: Path) -> None:
    """Note that a cache, a file or a folder, is used: now, and by this process until it ends.

    What dead processes were writing there is removed. Where nothing can be written, nobody may
    remove the cache either.
    """
    remove_leftovers(place if place.is_dir() else place.parent)
    with suppress(OSError):
        _note(place.resolve(), data_root(None), os.getpid())
    with suppress(OSError):
        os.utime(place)


@functools.cache
def _note(place: Path, root: Path, process: int) -> None:
    folder = root / IN_USE
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    note = folder / f"{scratch_name()}uses"
    if not note.exists():
        atexit.register(_removed, note, process)
    with note.open("a", encoding="utf-8") as file:
        file.write(json.dumps(os.fspath(place)) + "\n")


def _removed(note: Path, process: int) -> None:
    if os.getpid() == process:  # a forked one ends before
        with suppress(OSError):
            note.unlink(missing_ok=True)


def caches_in_use() -> set[Path]:
    """The caches that living processes use; of another machine those noted within a day."""
    return {Path(json.loads(line)) for note in _notes() for line in note if line.endswith("\n")}


def _notes() -> Iterator[list[str]]:
    for note in sorted((data_root(None) / IN_USE).glob(".fewshot-*-uses")):
        with suppress(OSError):
            if not is_left(note):
                yield note.read_text(encoding="utf-8").splitlines(keepends=True)
