"""Folders of images: which folders are classes or splits, which files are images."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fewshot.datasets.reading.decoding import reads_heic
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

IMAGE_FILE = re.compile(
    r"[^.].*\.(avif|bmp|gif|jfif|jpe|jpe?g|p[bgnp]m|png|tiff?|webp)", re.IGNORECASE
)
HEIC_FILE = re.compile(r"[^.].*\.(heic|heif)", re.IGNORECASE)
SHOWN = 5  # folders in a message
LEFT_BEHIND = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
"""Of macOS's archives, Synology's disks and Windows."""
SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {
    "train": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
}


def is_visible(name: str) -> bool:
    """Whether a file or folder of this name is the user's own, and not what a system has left."""
    return not name.startswith(".") and name not in LEFT_BEHIND


def is_image(name: str) -> bool:
    """Whether a file of this name is a visible image that can be read here."""
    if HEIC_FILE.fullmatch(name):
        return reads_heic()
    return IMAGE_FILE.fullmatch(name) is not None


def subfolders(folder: Path) -> dict[str, Path]:
    """The visible folders in `folder` by name, sorted."""
    try:
        folders = {p.name: p for p in sorted(folder.iterdir()) if p.is_dir() and is_visible(p.name)}
    except OSError as error:
        raise FewshotError(
            f"{folder} is no folder that can be read ({error.strerror}); correct the path"
        ) from error
    if not folders:
        raise FewshotError(f"{folder} holds no folders; expected a folder of images for each class")
    return folders


def find_split_folders(root: Path) -> dict[str, Path] | None:
    """The train, val and test folders of `root`; None where its folders are classes."""
    split_folders: dict[str, Path] = {}
    other_folders = []
    for name, folder in subfolders(root).items():
        split = SPLIT_FOLDERS.get(name.lower())
        if split is None:
            other_folders.append(name)
        elif split in split_folders:
            raise FewshotError(
                f"{root} has both {split_folders[split].name} and {name}; keep one of them"
            )
        else:
            split_folders[split] = folder
    if not split_folders or (len(split_folders) == 1 and other_folders):
        return None
    if other_folders:
        raise FewshotError(
            f"{root} has the folder {other_folders[0]!r} beside {', '.join(split_folders)}; move"
            " it away, or give `classes`"
        )
    if missing := [split for split in SPLITS if split not in split_folders]:
        raise FewshotError(
            f"{root} has no folder {missing[0]!r}; add it, or give `classes` of a folder without"
            " splits"
        )
    return split_folders


def image_files(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """The visible images in `folder` and the folders below, sorted; see `find_images`.

    Raises:
        FewshotError: there is none.
    """
    others = Counter() if others is None else others
    files = find_images(folder, others)
    if not files:
        raise no_images([folder], others)
    return files


def no_images(folders: Sequence[Path], others: Counter[str], remedy: str = "") -> FewshotError:
    """What is wrong with folders that hold no image, but files of other endings.

    Args:
        folders: they.
        others: the endings.
        remedy: what to do; otherwise they are to be classes.
    """
    passed = f" but {counted(others)}" if others else ""
    names = ", ".join(map(str, folders[:SHOWN]))
    more = f", and {len(folders) - SHOWN} more" if len(folders) > SHOWN else ""
    hold, those = ("holds", "this class") if len(folders) == 1 else ("hold", "these classes")
    return FewshotError(
        f"{names}{more} {hold} no image (png, jpg, webp, tiff, ...){passed};"
        f" {remedy or f'fill or remove {those}'}{_install(others)}"
    )


def find_images(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """The visible images in `folder` and the folders below, sorted.

    Args:
        folder: the folder.
        others: takes the endings of the visible files that are passed over.
    """

    def fail(error: OSError) -> None:
        raise FewshotError(
            f"{error.filename} cannot be read ({error.strerror}); correct its access rights"
        )

    files: list[str] = []
    for place, names in walked(folder, fail):
        images = [n for n in names if is_image(n)]
        files += [os.path.join(place, n) for n in images]
        if others is not None:
            rest = (Path(n) for n in {*names}.difference(images) if is_visible(n))
            others.update(path.suffix.lower() or "no ending" for path in rest)
    return sorted(map(Path, files))


def walked(
    folder: Path, onerror: Callable[[OSError], None] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """The folder and the visible ones below, links among them, each with its files' names."""
    seen = set()
    for place, below, names in os.walk(folder, onerror=onerror, followlinks=True):
        # A link to a folder further up would lead round and round.
        seen.add(os.path.realpath(place))
        below[:] = [
            n
            for n in below
            if is_visible(n) and os.path.realpath(os.path.join(place, n)) not in seen
        ]
        yield place, names


def counted(others: Counter[str]) -> str:
    """Files that were passed over, counted by their endings: ``3 files (2 .txt, 1 .heic)``."""
    order = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    kinds = ", ".join(f"{number} {ending}" for ending, number in order[:5])
    more = ", ..." if len(others) > 5 else ""
    number = others.total()
    return printable(f"{number} {'file' if number == 1 else 'files'} ({kinds}{more})")


def passed_over(others: Counter[str]) -> str:
    """What is said of files that were passed over, with the remedy."""
    return (
        f"passed over {counted(others)}, which cannot be read as images here; convert them to png"
        f" or jpg{_install(others)}"
    )


def _install(others: Counter[str]) -> str:
    heic = others.keys() & {".heic", ".heif"}
    return ", or pip install 'fewshot-lightning[heic]'" if heic else ""
