"""What benchmarks of many image files share: find their form, check classes, pack into a store."""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from fewshot.datasets.reading.store import Source, packed
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

Numbers: TypeAlias = Mapping[str, Mapping[str, int]]
"""How many images each class of each split has."""


class Found(NamedTuple):
    """Data on disk: their form, a fingerprint that changes with them, and how to read them."""

    form: str
    fingerprint: str
    source: Callable[[], Source]


def find_form(
    root: Path, places: Sequence[str], forms: Mapping[str, Mapping[str, str]]
) -> tuple[str, dict[str, Path]] | None:
    """The first of `forms` with all its files there, in `root` or one of the `places` below it.

    Args:
        root: the data's root.
        places: folders below it that people have the files in.
        forms: of each form the names of its files or folders by what they are.

    Returns:
        The form and its paths, or None.

    Raises:
        FewshotError: some files of a form are there, but not all, and no other form is.
    """
    nearest: tuple[int, str] | None = None  # how many files the most complete form lacks, and which
    for folder in (root / place for place in ("", *places)):
        for form, names in forms.items():
            paths = {part: folder / name for part, name in names.items()}
            missing = [path for path in paths.values() if not path.exists()]
            if not missing:
                return form, paths
            if len(missing) < len(paths) and (nearest is None or len(missing) < nearest[0]):
                there = next(path.name for path in paths.values() if path.exists())
                nearest = len(missing), f"{folder} has {there}, but no {missing[0].name}"
    if nearest:
        raise FewshotError(f"{nearest[1]}; add it, or correct the data's root")
    return None


def check_classes(
    where: str,
    numbers: Numbers,
    published: Mapping[str, Sequence[str]],
    named: str,
) -> None:
    """Check that the classes of each split are the published ones.

    Args:
        where: the data, for the message.
        numbers: how many images each class of each split has.
        published: the classes of each split.
        named: what a class's name looks like; files that number their classes are held to the
            number of classes.

    Raises:
        FewshotError: naming the split and the first class that is missing, without images, or not
            one of its.
    """
    for split, names in published.items():
        classes = numbers[split]
        if not all(re.fullmatch(named, name) for name in classes):
            if len(classes) != len(names):
                raise FewshotError(
                    f"{where} has {len(classes)} {split} classes, the split has {len(names)};"
                    " replace it"
                )
        elif missing := [name for name in names if not classes.get(name)]:
            raise FewshotError(
                f"{where} has no image of the {split} class {missing[0]!r}; add its images"
            )
        elif extra := sorted(classes.keys() - set(names)):
            raise FewshotError(
                f"{where} has the {split} class {extra[0]!r}, which is not in the split; remove it"
            )


def load_packed(
    find: Callable[[], Found], cache: Path, image_size: int, verify_store: bool
) -> tuple[str, dict[str, ClassDataset]]:
    """The form of the data and the datasets of their store, which is packed first where it must be.

    Args:
        find: finds the data.
        cache: folder of the stores, one for each form and size.
        image_size: H = W in pixels.
        verify_store: compare every stored image with its checksum, and pack again what differs.

    Raises:
        FewshotError: the data cannot be found or packed.
    """
    if image_size < 1:
        raise FewshotError(f"image_size is {image_size}; set it to 1 or more pixels")
    found = find()
    folder = cache / f"{found.form}-{image_size}px"
    return found.form, packed(
        folder, found.fingerprint, found.source, image_size, verify=verify_store
    )
