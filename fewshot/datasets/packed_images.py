"""Images of files, decoded once: into a store in the cache folder, or else into memory."""

import hashlib
import logging
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_only

from fewshot.datasets.reading.decoding import Channels, is_decodable, read_image
from fewshot.datasets.reading.downloads import data_root
from fewshot.datasets.reading.fingerprints import fingerprint_of
from fewshot.datasets.reading.progress import tracked
from fewshot.datasets.reading.store import broken_images, packed, read_index
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

log = logging.getLogger(__name__)


def pack_images(
    root: Path,
    files: Mapping[str, Sequence[Path]],
    chosen: str,
    image_size: int,
    channels: Channels,
    verify_store: bool = False,
) -> tuple[ClassDataset, dict[int, str]]:
    """The images of files by class from the store, and what is wrong with those it lacks.

    Args:
        root: the folder, for messages and the store's place.
        files: of each class.
        chosen: which of the folder's files they are.
        image_size: side in pixels.
        channels: 3 for RGB, 1 for grey.
        verify_store: compare every stored image with its checksum.
    """
    every = [path for paths in files.values() for path in paths]
    store = _store_of(root, chosen, image_size, channels)
    found = [path for path in every if path.exists()]  # a link may lead nowhere
    fingerprint = fingerprint_of(found, root, len(every) - len(found))
    before = read_index(store)
    if before is not None and before["complete"] and before["fingerprint"] != fingerprint:
        _tell_changed(root)

    def pack(verify: bool) -> tuple[ClassDataset, dict[int, str]]:
        images = packed(
            store, fingerprint, lambda: {"": files}, image_size, channels, verify, True
        )[""]
        return images, broken_images(store)

    try:
        images, broken = pack(verify_store)
        if any(is_decodable(every[row]) for row in broken):  # its access rights have changed
            images, broken = pack(True)
    except FewshotError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        log.warning("%s: images are decoded into memory instead, at every start", error)
        images, broken = in_memory(files, image_size, channels)
    return images, broken


def _store_of(root: Path, chosen: str, image_size: int, channels: int) -> Path:
    """The store of a folder's images: one for each place, size and choice of classes."""
    key = os.fsencode(os.path.realpath(root)) + b"\0" + os.fsencode(chosen)
    name = re.sub(r"[^\w.-]", "_", root.resolve().name, flags=re.ASCII)[:40]
    digest = hashlib.sha256(key).hexdigest()[:12]
    return data_root(None) / "image_folder" / f"{name}-{digest}-{image_size}px-{channels}"


def in_memory(
    files: Mapping[str, Sequence[Path]], image_size: int, channels: Channels
) -> tuple[ClassDataset, dict[int, str]]:
    """All images, and what is wrong with those that cannot be decoded, by their places."""
    paths = [path for of in files.values() for path in of]
    images, broken = np.empty((len(paths), channels, image_size, image_size), np.uint8), {}

    def read(row: int) -> None:
        try:
            images[row] = read_image(paths[row], image_size, channels)
        except FewshotError as error:
            broken[row] = str(error)

    with ThreadPoolExecutor() as pool:  # Pillow decodes outside the interpreter lock
        for _ in tracked(pool.map(read, range(len(paths))), "decoding images", len(paths)):
            pass
    whole = np.array([row not in broken for row in range(len(paths))], bool)
    numbers = np.repeat(np.arange(len(files)), [len(of) for of in files.values()])[whole]
    counts = np.bincount(numbers, minlength=len(files)).astype(np.int64)
    return ClassDataset(torch.from_numpy(images[whole]), counts, tuple(files)), broken


@rank_zero_only
def _tell_changed(folder: Path) -> None:
    log.warning(
        "%s: its images have changed since they were decoded; they are decoded again",
        printable(str(folder)),
    )
