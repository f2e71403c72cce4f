"""A dataset's files: where they lie, how they are fetched, unpacked and cached, never half there.

Everything is written beside its place and renamed into it, so that a killed process leaves nothing
that a later one trusts, and several processes may prepare the same data at once.
"""

import hashlib
import logging
import shutil
import socket
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from torch.hub import download_url_to_file

from fewshot.errors import FewshotError
from fewshot.files import scratch_folder
from fewshot.files.leftovers import remove_leftovers, scratch_name
from fewshot.files.places import data_root as data_root  # where the data lie
from fewshot.files.places import use_cache

log = logging.getLogger(__name__)

SILENCE = 60.0  # seconds without a byte after which a download is given up
Arrays = dict[str, NDArray[np.generic]]


def file_hash(path: Path, algorithm: str) -> str:
    """The hexadecimal digest of a file by `algorithm`: ``md5``, ``sha256``.

    ``git-blob`` is the id of its content in a git repository, which is known of files that are not.
    """
    with path.open("rb") as file:
        if algorithm == "git-blob":
            head = b"blob %d\0" % path.stat().st_size
            digest = hashlib.new("sha1", head, usedforsecurity=False)
        else:
            digest = hashlib.new(algorithm)
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def download(url: str, path: Path, checksum: str, algorithm: str = "sha256") -> None:
    """Fetch `url` to `path`, verified by its checksum.

    A file that is already there and right is kept.

    It is written beside and renamed, so that several processes may fetch at once, and what was
    interrupted is fetched anew.

    Raises:
        FewshotError: the address cannot be read or falls silent, or what it gave has another
            checksum.
    """
    remove_leftovers(path.parent)
    if path.is_file() and file_hash(path, algorithm) == checksum:
        return
    with scratch_folder(path.parent) as folder:
        fetched = folder / path.name
        try:
            with _patience(SILENCE):
                download_url_to_file(url, str(fetched))
        except (OSError, HTTPException) as error:
            raise FewshotError(
                f"could not download {url} ({error}); fetch it by hand and put it at {path}"
            ) from error
        if (digest := file_hash(fetched, algorithm)) != checksum:
            raise FewshotError(
                f"{url} gave a file with {algorithm} {digest}, expected {checksum}; try again, or"
                f" put the right file at {path}"
            )
        fetched.replace(path)


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    """Inside, a new connection that says nothing for so long is an `OSError`.

    Torch's downloads wait for ever.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextmanager
def opened_zip(archive: Path) -> Iterator[zipfile.ZipFile]:
    """The zip file `archive`, read in place: nothing is unpacked.

    The errors of reading it in the block are told here.

    Raises:
        FewshotError: the archive is missing, truncated or corrupt, or a member is a link or leads
            outside it.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            for member in file.infolist():
                path = PurePosixPath(member.filename)
                is_link = (member.external_attr >> 16) & 0o170000 == 0o120000
                if path.is_absolute() or ".." in path.parts or is_link:
                    raise FewshotError(
                        f"{archive}: the member {member.filename!r} leads outside the archive; do"
                        " not use this archive"
                    )
            yield file
    # RuntimeError: encrypted
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise FewshotError(
            f"{archive} is truncated or corrupt ({error}); delete it and fetch it again"
        ) from error


def cached_arrays(path: Path, build: Callable[[], Mapping[str, NDArray[np.generic]]]) -> Arrays:
    """The arrays of the cache file `path` (an uncompressed ``.npz``).

    Built and written if missing or bad.

    The checksum of the whole file stands in its sidecar ``<path>.sha256``: a truncated or altered
    cache is never trusted, it is built again. A folder that cannot be written to costs the cache,
    not the run, and is logged.
    """
    if cache_is_whole(path):
        with np.load(path, allow_pickle=False) as file:
            use_cache(path)
            return dict(file)
    arrays = dict(build())
    write_cache(path, arrays)
    return arrays


def cache_is_whole(path: Path) -> bool:
    """Whether the cache file `path` is there and has the checksum of its sidecar."""
    remove_leftovers(path.parent)
    try:
        return _sidecar(path).read_text().strip() == file_hash(path, "sha256")
    except (OSError, ValueError):
        return False  # not built yet, or no longer text


def write_cache(path: Path, arrays: Arrays) -> None:
    """Write the cache file `path` with its sidecar.

    A folder that cannot be written to is logged.
    """
    sidecar = _sidecar(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=path.parent, prefix=scratch_name()))
    except OSError as error:
        log.warning("cannot write the cache %s (%s): going on without it", path, error)
        return
    try:
        # numpy types the keywords too narrowly
        np.savez(scratch / path.name, **arrays)  # type: ignore[arg-type]
        (scratch / sidecar.name).write_text(file_hash(scratch / path.name, "sha256") + "\n")
        (scratch / path.name).replace(path)
        (scratch / sidecar.name).replace(sidecar)
    except OSError as error:
        log.warning("cannot write the cache %s (%s): going on without it", path, error)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")
