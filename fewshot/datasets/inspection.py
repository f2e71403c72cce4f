"""What a folder of images holds, found without decoding any: by the heads of the files."""

import hashlib
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from fewshot.datasets.reading.decoding import FLOATING, reads_heic, unreadable
from fewshot.datasets.reading.folders import SPLITS, find_images, find_split_folders, subfolders


@dataclass(frozen=True)
class Inspection:
    """What a folder of images holds.

    Args:
        counts: images of each class that look readable; a class of a split folder is called
            ``train/<class>``.
        given: the classes of train, val and test, where there are such folders.
        others: the files that are passed over, by their endings.
        sizes: images by width and height.
        modes: images by Pillow's mode.
        formats: images by format.
        unreadable: what is wrong with files that cannot be read.
        duplicates: files of the same content in different classes.
    """

    counts: Mapping[str, int]
    given: Mapping[str, Sequence[str]] | None
    others: Counter[str]
    sizes: Counter[tuple[int, int]]
    modes: Counter[str]
    formats: Counter[str]
    unreadable: Sequence[str]
    duplicates: Sequence[Sequence[Path]]


def inspect(root: Path) -> Inspection:
    """Look at ``root/<class>/...`` or ``root/{train,val,test}/<class>/...``.

    Raises:
        FewshotError: a folder is missing or cannot be read.
    """
    split_folders, given = find_split_folders(root), None
    if split_folders is None:
        folders = subfolders(root)
    else:
        below = {split: subfolders(split_folders[split]) for split in SPLITS}
        folders = {f"{s}/{name}": path for s in SPLITS for name, path in below[s].items()}
        given = {split: [f"{split}/{name}" for name in of] for split, of in below.items()}
    others: Counter[str] = Counter()
    files = {name: find_images(folder, others) for name, folder in folders.items()}
    every = [(name, path) for name, paths in files.items() for path in paths]
    reads_heic()
    with ThreadPoolExecutor() as pool:
        heads = list(pool.map(_head, (path for _, path in every), chunksize=64))
        duplicates = _duplicates(every, pool)
    counts = dict.fromkeys(files, 0)
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    formats: Counter[str] = Counter()
    wrong = []
    for (name, path), head in zip(every, heads, strict=True):
        if isinstance(head, str):
            wrong.append(f"{path}, {head}")
            continue
        counts[name] += 1
        for counter, value in zip((sizes, modes, formats), head, strict=True):
            counter[value] += 1  # type: ignore[index]  # each its own
    return Inspection(counts, given, others, sizes, modes, formats, wrong, duplicates)


def _head(path: Path) -> tuple[tuple[int, int], str, str] | str:
    """A file's size in pixels, mode and format, or what is wrong with it."""
    try:
        if not path.stat().st_size:
            return "which has 0 bytes"
        with Image.open(path) as image:
            if image.mode == "F":
                return f"which cannot be decoded ({FLOATING})"
            return image.size, image.mode, image.format or "?"
    except Exception:  # Pillow passes on whatever the format's parser raises
        return unreadable(path) or "which cannot be read"


def _duplicates(files: Iterable[tuple[str, Path]], pool: ThreadPoolExecutor) -> list[list[Path]]:
    """Files of the same content in different classes."""
    by_size: dict[int, list[tuple[str, Path]]] = defaultdict(list)
    for name, path in files:
        try:
            by_size[os.path.getsize(path)].append((name, path))
        except OSError:
            continue  # a link that leads nowhere
    alike = [
        file
        for size, of in by_size.items()
        if size and len({name for name, _ in of}) > 1
        for file in of
    ]
    same: dict[str, list[tuple[str, Path]]] = defaultdict(list)
    for file, digest in zip(alike, pool.map(_digest, (path for _, path in alike)), strict=True):
        same[digest].append(file)
    return [[p for _, p in of] for of in same.values() if len({name for name, _ in of}) > 1]


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return str(path)  # like no other
