"""A packed store: resized images in one memory-mapped array, for slow or very large sources.

A store is a folder of three files:

- ``images.u8``: the images (n, C, H, W), one byte a value, class after class, split after split;
- ``checks.u64``: for each image the CRC-32 of its bytes plus 1, or 0 where it has not been written
  yet;
- ``index.json``: the splits, their classes and how many images each has, whether all are written,
  and which cannot be, as they cannot be decoded.

An image counts as written if its bytes have its checksum. So a process that was killed leaves
nothing that must be trusted: packing goes on with what is missing. Each process compares every
image with its checksum when it reads it first. Workers and ranks map the same file, whose pages the
machine holds once.
"""

import hashlib
import json
import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from shutil import disk_usage
from typing import Any, TypeAlias

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Self

from fewshot.datasets.reading.decoding import Channels, ImageSource, read_image, told_at_once
from fewshot.datasets.reading.progress import tracked
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.errors import FewshotError
from fewshot.files import atomic_write
from fewshot.files.places import use_cache

log = logging.getLogger(__name__)

Source: TypeAlias = Mapping[str, Mapping[str, Sequence[ImageSource]]]
"""Split -> class -> its images, in the order of the rows that they get."""
FORMAT = 2  # raise it with every change of what images become
BLOCK = 256  # images decoded at a time; each is some kilobytes
IMAGES, CHECKS, INDEX = "images.u8", "checks.u64", "index.json"


class PackedImages(LazyInputs):
    """Images uint8 (C, H, W) of a store, read from the mapped file when they are asked for.

    Args:
        folder: the store.
        shape: C, H, W.
        rows: the store's rows that these are, (n,).
        fingerprint: what the store was made of.
    """

    def __init__(
        self,
        folder: Path,
        shape: tuple[int, int, int],
        rows: NDArray[np.int64],
        fingerprint: str,
    ) -> None:
        self.folder, self.shape, self.rows, self.fingerprint = folder, shape, rows, fingerprint
        self.images, self.checks = _mapped(folder, shape)
        self.checked = np.zeros(len(self.images), bool)

    def __reduce__(self) -> tuple[Any, ...]:  # a spawned worker maps the file itself
        return _mapped_again, (type(self), self.folder, self.shape, self.rows, self.fingerprint)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.rows)

    def select(self, rows: NDArray[np.int64]) -> Self:
        """These images alone."""
        return type(self)(self.folder, self.shape, self.rows[rows], self.fingerprint)

    def take(self, rows: NDArray[np.int64]) -> Tensor:
        """The images (n, C, H, W), compared with their checksums when they are read first.

        Raises:
            FewshotError: an image is not what was packed.
        """
        stored = self.rows[rows]
        images = self.images.take(stored, axis=0)  # copies whole images
        for i in np.flatnonzero(~self.checked[stored]):
            if _check(images[i]) != self.checks[stored[i]]:
                raise FewshotError(
                    f"image {stored[i]} of the packed store {self.folder} is corrupt; mend it with"
                    " `fewshot prepare`"
                )
            self.checked[stored[i]] = True
        return torch.from_numpy(images).view(len(stored), *self.shape)


def _mapped_again(kind: type[PackedImages], folder: Path, *arguments: Any) -> PackedImages:
    """The images in another process, unless the store has been made anew of others since."""
    if (read_index(folder) or {}).get("fingerprint") != arguments[-1]:
        raise FewshotError(
            f"{folder} has been made again of other images since this run began; start it again"
        )
    return kind(folder, *arguments)


def packed(
    folder: Path,
    fingerprint: str,
    source: Callable[[], Source],
    image_size: int,
    channels: Channels = 3,
    verify: bool = False,
    leave_out_broken: bool = False,
) -> dict[str, ClassDataset]:
    """The datasets of the store in `folder`, packed first if missing, partial or of another source.

    Args:
        folder: the store's; written to under a lock, so that other processes wait and then find it.
        fingerprint: a text that changes when the source's images do; see
            `fewshot.datasets.reading.fingerprints`.
        source: gives the images, if any must be packed.
        image_size: H = W in pixels; `fewshot.datasets.reading.decoding.read_image` brings them to
            size.
        channels: 3 for RGB, 1 for grey.
        verify: compare every stored image with its checksum, and pack again what differs.
        leave_out_broken: images that cannot be decoded are not in the datasets; `broken_images`
            says which they are.

    Returns:
        A dataset for each split of the source, its classes in the source's order.

    Raises:
        FewshotError: images cannot be decoded, or the folder not be written.
    """
    facts = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "shape": [channels, image_size, image_size],
    }
    use_cache(folder)
    index = read_index(folder)
    if verify or index is None or not index["complete"] or not facts.items() <= index.items():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(folder.name + ".lock")):
                # another process may have packed it while this one waited
                index = read_index(folder)
                if (
                    verify
                    or index is None
                    or not index["complete"]
                    or not facts.items() <= index.items()
                ):
                    _pack(folder, facts, source(), leave_out_broken)
        except OSError as error:
            raise FewshotError(
                f"cannot write the packed store {folder} ({error}); set FEWSHOT_DATA to a folder of"
                " yours with room"
            ) from error
    return open_store(folder)


def open_store(folder: Path) -> dict[str, ClassDataset]:
    """The datasets of the complete store in `folder`.

    Raises:
        FewshotError: there is none.
    """
    index = read_index(folder)
    if index is None or not index["complete"]:
        raise FewshotError(f"{folder} is no complete packed store; write it with `fewshot prepare`")
    datasets, start = {}, 0
    broken = [int(row) for row in index.get("broken", {})]
    for split, classes in index["splits"].items():
        counts = np.array(list(classes.values()), np.int64)
        rows = np.arange(start, start + counts.sum())
        start += len(rows)
        whole = ~np.isin(rows, broken)
        numbers = np.repeat(np.arange(len(counts)), counts)[whole]
        datasets[split] = ClassDataset(
            PackedImages(folder, tuple(index["shape"]), rows[whole], index["fingerprint"]),
            np.bincount(numbers, minlength=len(counts)).astype(np.int64),
            tuple(classes),
        )
    return datasets


def broken_images(folder: Path) -> dict[int, str]:
    """What is wrong with the images of the complete store in `folder` that could not be decoded.

    By their places in the source, all splits in a row.
    """
    index = read_index(folder) or {}
    return {int(row): told for row, told in index.get("broken", {}).items()}


def read_index(folder: Path) -> dict[str, Any] | None:
    """The store's index; None where it or the files that it describes are missing or not whole."""
    try:
        index = json.loads((folder / INDEX).read_text())
        digest = index.pop("digest")
        number = sum(sum(classes.values()) for classes in index["splits"].values())
        whole = (folder / IMAGES).stat().st_size == number * int(np.prod(index["shape"]))
        whole &= (folder / CHECKS).stat().st_size == 8 * number
        return index if whole and digest == _digest(index) else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _pack(folder: Path, facts: Mapping[str, Any], source: Source, leave_out_broken: bool) -> None:
    """Write what is missing of the store, and its index before and after."""
    splits = {
        split: {name: len(images) for name, images in classes.items()}
        for split, classes in source.items()
    }
    plan = {**facts, "splits": splits, "complete": False}
    images = [image for classes in source.values() for items in classes.values() for image in items]
    if not images:
        raise FewshotError(f"there are no images to pack into {folder}; correct the data's root")
    shape = tuple(facts["shape"])
    size = int(np.prod(shape))
    folder.mkdir(parents=True, exist_ok=True)
    index = read_index(folder)
    if index is None or {**index, "complete": False, "broken": {}} != {**plan, "broken": {}}:
        # the index first: what is left of a store must not look like one
        for name in (INDEX, IMAGES, CHECKS):
            (folder / name).unlink(missing_ok=True)
        if (needed := len(images) * size) > (free := disk_usage(folder).free):
            raise OSError(f"it needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free")
        (folder / CHECKS).write_bytes(bytes(8 * len(images)))
        with (folder / IMAGES).open("wb") as file:
            file.truncate(len(images) * size)
    _write_index(folder, plan)
    stored, checks = _mapped(folder, shape)
    recorded = np.flatnonzero(checks)
    for place in tracked(recorded, "checking packed images"):
        checks[place] *= _check(stored[place]) == checks[place]
    missing = np.flatnonzero(checks == 0)
    log.info("packing %d of %d images into %s", len(missing), len(images), folder)
    broken: dict[str, str] = {}
    with (
        ThreadPoolExecutor() as pool,  # Pillow decodes outside the interpreter lock
        (folder / IMAGES).open("r+b") as image_file,
        (folder / CHECKS).open("r+b") as check_file,
    ):
        blocks = np.split(missing, range(BLOCK, len(missing), BLOCK))
        decoded = (
            (row, image)
            for block in blocks
            for row, image in zip(
                block.tolist(),
                pool.map(lambda row: _read(images[row], shape[1], shape[0]), block),
                strict=True,
            )
        )
        for row, image in tracked(decoded, "packing images", len(missing)):
            if isinstance(image, str):
                broken[str(row)] = image
                continue
            content = np.ascontiguousarray(image)
            image_file.seek(row * size)
            image_file.write(content.data)
            check_file.seek(8 * row)
            check_file.write(_check(content).to_bytes(8, "little"))
    if broken and not leave_out_broken:
        raise FewshotError(told_at_once(list(broken.values())))
    _write_index(folder, {**plan, "complete": True, **({"broken": broken} if broken else {})})


def _read(source: ImageSource, image_size: int, channels: Channels) -> NDArray[np.uint8] | str:
    """The image, or what is wrong with it."""
    try:
        return read_image(source, image_size, channels)
    except FewshotError as error:
        return str(error)


def _write_index(folder: Path, index: Mapping[str, Any]) -> None:
    with atomic_write(folder / INDEX) as file:
        json.dump({**index, "digest": _digest(index)}, file)


def _mapped(folder: Path, shape: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
    """The images (n, C * H * W), mapped, and their checks (n,)."""
    checks = np.fromfile(folder / CHECKS, "<u8")
    return (
        np.memmap(folder / IMAGES, np.uint8, "r").reshape(len(checks), int(np.prod(shape))),
        checks,
    )


def _check(image: NDArray[np.uint8]) -> int:
    return zlib.crc32(image.data) + 1


def _digest(index: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
