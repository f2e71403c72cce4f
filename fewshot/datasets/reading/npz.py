"""Arrays of an ``.npz`` file that stay on the disk: only what is read comes into memory."""

import logging
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fewshot.datasets.reading.downloads import Arrays, cache_is_whole, opened_zip, write_cache
from fewshot.errors import FewshotError
from fewshot.files.places import use_cache

log = logging.getLogger(__name__)


def npz_member(path: Path, name: str) -> np.ndarray:
    """The array `name` of an ``.npz`` file, mapped where uncompressed, for it may have 10 GB.

    Raises:
        FewshotError: the file is damaged, or has no such array.
    """
    with opened_zip(path) as archive:
        if f"{name}.npy" not in archive.namelist():
            raise FewshotError(f"{path} has no array {name!r}; replace it")
        info = archive.getinfo(f"{name}.npy")
        try:
            if info.compress_type != zipfile.ZIP_STORED:
                log.warning(
                    "%s is compressed: reading it whole, %.1f GB", path, info.file_size / 1e9
                )
                with np.load(path, allow_pickle=False) as arrays:
                    return np.asarray(arrays[name])
            with path.open("rb") as file:
                # of the local header: the lengths of the name and the extra field
                file.seek(info.header_offset + 26)
                file.seek(sum(struct.unpack("<HH", file.read(4))), 1)
                version = np.lib.format.read_magic(file)
                read = (
                    np.lib.format.read_array_header_1_0
                    if version == (1, 0)
                    else np.lib.format.read_array_header_2_0
                )
                shape, fortran, dtype = read(file)
                if fortran or dtype.hasobject:
                    raise ValueError(
                        f"{dtype} in Fortran's order" if fortran else "it holds objects"
                    )
                return np.memmap(path, dtype, "r", file.tell(), shape)
        except ValueError as error:
            raise FewshotError(
                f"{path}: its array {name!r} cannot be read ({error}); replace it"
            ) from error


def mapped_arrays(path: Path, build: Callable[[], Arrays]) -> Arrays:
    """The arrays of the cache file `path`, built as by `cached_arrays`, but left in the file.

    Raises:
        FewshotError: the file cannot be written.
    """
    use_cache(path)
    if not cache_is_whole(path):
        write_cache(path, build())
    if not path.is_file():
        raise FewshotError(f"cannot write {path}; set FEWSHOT_DATA to a folder of yours with room")
    with opened_zip(path) as archive:
        names = [name.removesuffix(".npy") for name in archive.namelist()]
    return {name: npz_member(path, name) for name in names}
