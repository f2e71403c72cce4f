"""What is asked of a predictor: the items, and the class of each where its folder says so."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.datasets.preprocessing import Preprocessing, TextPreprocessing
from fewshot.datasets.reading.folders import find_images
from fewshot.datasets.reading.kinds import check_kind
from fewshot.datasets.text_folder import read_own_texts
from fewshot.errors import FewshotError


class Queries(NamedTuple):
    """Items, and of each the name of the folder or file of a class that it is in, if it is."""

    items: list[Any]
    labels: list[str | None]


def read_queries(reader: Preprocessing[Any], source: Any, classes: Collection[str]) -> Queries:
    """The items that `source` means, and the class of each.

    Known are those below a folder ``<class>`` of a folder (of texts also in ``<class>.txt``, and in
    a table with a column of labels), for the names of `classes`.

    Args:
        reader: what reads them.
        source: an image file, a folder, a file of texts (a `Path`), or items themselves.
        classes: the names that say something.

    Raises:
        FewshotError: the source cannot be read, or holds texts for a network of images, or images
            for one of texts.
    """
    is_path = isinstance(source, os.PathLike) or (
        isinstance(source, str) and reader.kind == "image"
    )
    if not is_path:
        items = reader.query(source)
        return Queries(items, [None] * len(items))
    path = Path(source)
    if not path.exists():
        raise FewshotError(f"there is no query {path}; correct the path")
    check_kind(path, reader.kind)
    if isinstance(reader, TextPreprocessing):
        found: list[tuple[Any, str]] = list(reader.labelled(path))
    else:
        found = [(item, _folder(item, path)) for item in reader.query(path)]
    labels = [name if name in classes else None for _, name in found]
    return Queries([item for item, _ in found], labels)


def number_seen(support: Path, items: Sequence[Any]) -> int:
    """How many items are the support's own: its files, whatever leads to them, or its texts."""
    if all(isinstance(item, str) for item in items):
        own = {text for of in read_own_texts(support).texts.values() for text in of}
        return sum(item in own for item in items)
    files = {os.path.realpath(path) for path in find_images(support)}
    return sum(os.path.realpath(item) in files for item in items)


def _folder(item: Any, root: Path) -> str:
    """The folder in `root` that a file is below; empty where it lies in `root`, or is it."""
    parts = Path(item).relative_to(root).parts
    return parts[0] if len(parts) > 1 else ""
