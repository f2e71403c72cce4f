"""CUB-200-2011: 200 kinds of birds, 11 788 photographs, a box around each bird (Wah et al., 2011).

Three incompatible class splits are in use, and with or without the box accuracies differ by some 15
points: name both.
"""

from pathlib import Path
from typing import Literal, TypeAlias, get_args

from fewshot.datasets.reading.decoding import Cropped, ImageSource
from fewshot.datasets.reading.fingerprints import fingerprint_of
from fewshot.datasets.reading.published import Found, find_form, load_packed
from fewshot.datasets.reading.store import Source
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

CubSplit: TypeAlias = Literal["closer_look", "meta_dataset", "feat"]
KINDS, IMAGES = 200, 11_788
PLACES = ("CUB_200_2011", "cub/CUB_200_2011", "cub")
FORMS = {"photographs": {"list": "images.txt", "boxes": "bounding_boxes.txt", "images": "images"}}
REMEDY = "unpack CUB_200_2011.tgz again"
# The numbers of the kinds, from 1 on; those that are not named train.
HELD_OUT: dict[str, dict[str, str]] = {
    "meta_dataset": {
        "val": (
            "44 51 52 55 57 61 64 66 68 72 76 80 84 96 113 121 127 136 140 145 150 155 159 162 172"
            " 176 178 198 199 200"
        ),
        "test": (
            "8 9 15 20 28 30 35 39 45 46 82 85 94 101 103 112 118 122 128 133 134 137 147 148 163"
            " 168 169 170 193 194"
        ),
    },
    "feat": {
        "val": (
            "1 2 4 7 12 14 16 21 24 36 42 43 49 50 51 53 58 65 66 69 70 77 79 85 86 92 95 96 101"
            " 103 105 106 111 117 120 121 122 136 156 157 159 162 163 165 168 172 187 192 199 200"
        ),
        "test": (
            "10 18 22 26 29 30 32 33 35 37 39 40 48 54 59 68 71 73 78 80 82 83 88 89 100 104 115"
            " 116 118 128 129 133 134 141 143 148 149 152 158 166 167 170 173 174 175 177 189 191"
            " 193 194"
        ),
    },
}


def split_kinds(split: CubSplit) -> dict[str, list[int]]:
    """The kinds of train, val and test, by their place in the sorted folders (from 0 on).

    Args:
        split: ``closer_look`` 100/50/50 (arXiv:1904.04232), every second kind trains, of the others
            every second validates; ``meta_dataset`` 140/30/30 (arXiv:1903.03096); ``feat``
            100/50/50 (arXiv:1812.03664).
    """
    if split not in get_args(CubSplit):
        raise FewshotError(
            f"unknown split of CUB {split!r}; use one of {', '.join(get_args(CubSplit))}"
        )
    if split == "closer_look":
        sides = {
            i: "train" if i % 2 == 0 else "val" if i % 4 == 1 else "test" for i in range(KINDS)
        }
    else:
        held_out = {
            int(number) - 1: part
            for part, text in HELD_OUT[split].items()
            for number in text.split()
        }
        sides = {i: held_out.get(i, "train") for i in range(KINDS)}
    return {
        part: [i for i in range(KINDS) if sides[i] == part] for part in ("train", "val", "test")
    }


def load_cub(
    root: Path,
    cache: Path,
    split: CubSplit = "closer_look",
    crop: bool = False,
    image_size: int = 84,
    verify: bool = True,
    verify_store: bool = False,
) -> dict[str, ClassDataset]:
    """Load the birds in colour.

    Args:
        root: holds the folder ``CUB_200_2011`` with ``images/``, ``images.txt`` and
            ``bounding_boxes.txt``, or is it.
        cache: folder of the packed stores: one with crops, one without, for all splits.
        split: which kinds train, validate and test; see `split_kinds`.
        crop: take the box around the bird, resized to a square; else the middle square of the
            photograph.
        image_size: side in pixels.
        verify: all 11 788 photographs must be there.
        verify_store: check the whole store.

    Raises:
        FewshotError: files are missing or damaged, or an argument is out of range.
    """
    kinds = split_kinds(split)
    folder = cache / ("crop" if crop else "whole")
    _, datasets = load_packed(lambda: _find(root, crop, verify), folder, image_size, verify_store)
    _check(str(root), datasets["all"].counts.tolist(), verify)
    return {part: datasets["all"].select(places) for part, places in kinds.items()}


def _find(root: Path, crop: bool, verify: bool) -> Found:
    found = find_form(root, PLACES, FORMS)
    if found is None:
        raise FewshotError(
            f"{root} does not hold CUB-200-2011: expected CUB_200_2011/ with images/, images.txt"
            " and bounding_boxes.txt. It comes from www.vision.caltech.edu/datasets/cub_200_2011"
            " (non-commercial research and education only)"
        )
    form, paths = found
    photographs = {
        number: paths["images"] / name for number, (name,) in _table(paths["list"], 1).items()
    }
    if missing := next((path for path in photographs.values() if not path.is_file()), None):
        raise FewshotError(f"{paths['list']} names {missing}, which is not there; {REMEDY}")

    def source() -> Source:
        boxes = _table(paths["boxes"], 4) if crop else {}
        kinds: dict[str, list[ImageSource]] = {}
        for number, path in sorted(photographs.items(), key=lambda item: item[1]):
            kinds.setdefault(path.parent.name, []).append(
                Cropped(path, _box(boxes.get(number, []), paths["boxes"], number)) if crop else path
            )
        _check(str(paths["list"]), [len(images) for images in kinds.values()], verify)
        return {"all": kinds}

    files = [paths["list"], paths["boxes"], *photographs.values()]
    return Found(form, fingerprint_of(files, paths["list"].parent), source)


def _table(path: Path, columns: int) -> dict[int, list[str]]:
    """The words of each line after its number."""
    table: dict[int, list[str]] = {}
    try:
        for line in path.read_text().splitlines():
            number, *words = line.split()
            if len(words) != columns:
                raise ValueError(f"line {len(table) + 1} is {line!r:.80}")
            table[int(number)] = words
    except (OSError, ValueError) as error:
        raise FewshotError(
            f"{path} is no table of {columns + 1} columns ({error}); {REMEDY}"
        ) from error
    return table


def _box(words: list[str], path: Path, number: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) of x, y, width and height."""
    try:
        x, y, width, height = (round(float(word)) for word in words)
    except ValueError as error:
        raise FewshotError(
            f"{path} has no box for photograph {number} ({error}); {REMEDY}"
        ) from error
    return x, y, x + width, y + height


def _check(where: str, counts: list[int], verify: bool) -> None:
    if len(counts) != KINDS:
        raise FewshotError(f"{where} has {len(counts)} kinds of birds, CUB has {KINDS}; {REMEDY}")
    if verify and sum(counts) != IMAGES:
        raise FewshotError(
            f"{where} has {sum(counts)} photographs, CUB has {IMAGES}; {REMEDY}, or set verify:"
            " false"
        )
