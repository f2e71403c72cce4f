"""The caches that the package keeps: what they are, how large, and which go first.

A cache is told by its form, never by its place alone, for the data root holds data too: features of
a network, a packed store of images, or arrays with a checksum beside them. All are made again when
they are asked for.
"""

import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from fewshot.files.leftovers import remove_leftovers, scratch_name
from fewshot.files.places import caches_in_use

FEATURES, ENDING = "features", ".features"
"""The folder of all networks' features in the data root, and the ending of their files."""
STORE, CHECKSUM = ("index.json", "images.u8"), ".npz.sha256"


class Cache(NamedTuple):
    """A cache.

    Args:
        path: the file, or the folder.
        kind: `features`, `images` or `arrays`.
        size: bytes on the disk.
        used: when it was used last, in seconds since 1970.
    """

    path: Path
    kind: str
    size: int
    used: float


def caches(root: Path) -> list[Cache]:
    """The caches in a data root, the least recently used first."""
    found = features_in(root / FEATURES)
    for folder in (root, *_folders(root)):
        found += [*_arrays(folder), *_stores(folder)]
    return sorted(found, key=_order)


def features_in(folder: Path) -> list[Cache]:
    """Features of each network in a folder of them, the least recently used first."""
    made = {path: [*path.glob(f"*{ENDING}")] for path in _folders(folder)}
    found = [_of_files(path, FEATURES, files) for path, files in made.items() if files]
    return sorted(filter(None, found), key=_order)


def _order(cache: Cache) -> tuple[float, Path]:
    return cache.used, cache.path


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError:
        return []


def _arrays(folder: Path) -> Iterator[Cache]:
    """Arrays in a folder, each with its checksum."""
    for checksum in folder.glob(f"*{CHECKSUM}"):
        path = checksum.with_suffix("")
        if cache := _of_files(path, "arrays", [path, checksum]):
            yield cache


def _stores(folder: Path) -> Iterator[Cache]:
    """The packed stores in a folder."""
    for path in _folders(folder):
        if all((path / name).is_file() for name in STORE) and (
            cache := _of_files(path, "images", path.iterdir())
        ):
            yield cache


def _of_files(path: Path, kind: str, files: Iterable[Path]) -> Cache | None:
    """A cache of these files; None: another process is removing it."""
    try:
        size = sum(file.stat().st_size for file in files)
        return Cache(path, kind, size, path.stat().st_mtime)
    except OSError:
        return None


def to_go(
    found: Sequence[Cache], most: float | None, oldest: float | None, used: Collection[Path] = ()
) -> list[Cache]:
    """Which caches must go, the least recently used first, so that the rest is within the bounds.

    Args:
        found: the caches, the least recently used first.
        most: bytes of all that stay; None: any.
        oldest: when one that stays was used last, at the earliest; None: whenever.
        used: those in use, which stay.
    """
    left, going = sum(cache.size for cache in found), []
    for cache in found:
        too_old = oldest is not None and cache.used < oldest
        too_much = most is not None and left > most
        if (too_old or too_much) and cache.path.resolve() not in used:
            going.append(cache)
            left -= cache.size
    return going


def removed(found: Iterable[Cache]) -> Iterator[Cache]:
    """Remove caches, each whole or not at all, and yield each that has gone.

    Those that are in use by now stay.

    Args:
        found: the caches.

    Raises:
        OSError: one cannot be removed.
    """
    for cache in found:
        if cache.path.resolve() not in caches_in_use():
            _remove(cache.path)
            yield cache


def _remove(path: Path) -> None:
    """Take a cache out of its place, where others find all of it or nothing, and then remove it."""
    remove_leftovers(path.parent)
    gone = path.with_name(f"{scratch_name()}gone")
    with suppress(FileNotFoundError):  # another process has removed it
        os.replace(path, gone)
    if gone.is_dir():
        shutil.rmtree(gone)
    else:
        gone.unlink(missing_ok=True)
    for beside in (".sha256", ".lock"):
        path.with_name(path.name + beside).unlink(missing_ok=True)
