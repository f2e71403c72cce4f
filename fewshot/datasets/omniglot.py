"""Omniglot: 1623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al., 2015.

MIT licence).

https://github.com/brendenlake/omniglot. Four incompatible splits are in use: name the one you
report.
"""

import io
import logging
import random
import re
import zipfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeAlias, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from fewshot.datasets.reading.decoding import Encoded
from fewshot.datasets.reading.downloads import cached_arrays, opened_zip
from fewshot.datasets.reading.downloads import download as fetch
from fewshot.datasets.reading.fingerprints import fingerprint_of
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

log = logging.getLogger(__name__)

OmniglotSplit: TypeAlias = Literal["vinyals", "maml", "lake", "meta_dataset"]
Images: TypeAlias = NDArray[np.uint8]

HALVES = {"images_background": (30, 964), "images_evaluation": (20, 659)}  # alphabets, characters
DRAWINGS = 20
PIXELS = 105  # side of the original drawings
SIZE = 28  # side of what the literature trains on
REMEDY = "delete Omniglot's files and fetch them again (`download: true`)"
FORMAT = 1  # of the cache, in its name: raise it with every change that changes a byte
BEFORE = f"omniglot_{SIZE}x{SIZE}_bilinear.npz"  # of versions that did not ask what it is made from

# Vinyals' test characters are the last 423 of the sorted evaluation half; five background alphabets
# validate.
VINYALS_TEST_FROM = "Gurmukhi/character42"
VINYALS_VAL = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
MAML_TRAIN, MAML_VAL = 1100, 100
META_DATASET_VAL = (
    "Alphabet_of_the_Magi",
    "Blackfoot_(Canadian_Aboriginal_Syllabics)",
    "Inuktitut_(Canadian_Aboriginal_Syllabics)",
    "Ojibwe_(Canadian_Aboriginal_Syllabics)",
    "Tagalog",
)
ROTATED = {"vinyals": ("train", "val", "test"), "maml": ("train",), "lake": (), "meta_dataset": ()}


def split_characters(
    characters: Sequence[str], split: OmniglotSplit, split_seed: int = 1
) -> dict[str, list[int]]:
    """Say which characters train, validate and test.

    Args:
        characters: ``half/alphabet/character``, sorted by (alphabet, character) over both halves.
        split: see `load_omniglot`.
        split_seed: seeds the shuffle of ``maml``; the other splits are fixed.

    Returns:
        train, val and test: indices into `characters`.
    """
    if split not in get_args(OmniglotSplit):
        known = ", ".join(get_args(OmniglotSplit))
        raise FewshotError(f"unknown Omniglot split {split!r}; use one of {known}")
    if split == "maml":
        order = list(range(len(characters)))
        random.Random(split_seed).shuffle(order)
        end = MAML_TRAIN + MAML_VAL
        return {"train": order[:MAML_TRAIN], "val": order[MAML_TRAIN:end], "test": order[end:]}
    held_out = META_DATASET_VAL if split == "meta_dataset" else VINYALS_VAL
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for index, character in enumerate(characters):
        half, _, name = character.partition("/")
        evaluation = half == "images_evaluation"
        if evaluation and (split != "vinyals" or name >= VINYALS_TEST_FROM):
            parts["test"].append(index)
        else:
            parts["val" if name.split("/")[0] in held_out else "train"].append(index)
    return parts


def load_omniglot(
    root: Path,
    cache: Path,
    split: OmniglotSplit = "vinyals",
    split_seed: int = 1,
    download: bool = False,
) -> dict[str, ClassDataset]:
    """Load Omniglot as 28x28 grey images, ink bright (255) on dark paper.

    The splits, in characters:

    - ``vinyals`` 1028/172/423; each rotation by 90 degrees is a class of its own: 4112/688/1692
      (arXiv:1606.04080, by the lists of ProtoNet's authors).
    - ``maml`` 1100/100/423: the characters of both halves, sorted by (alphabet, character),
      shuffled with ``random.Random(split_seed)``. MAML's own code (arXiv:1703.03400) shuffles with
      seed 1 too, but what it shuffles is in the order of ``os.listdir``: its list cannot be had
      again. Training classes are rotated, the others are upright (its code gave each test class a
      random rotation as well).
    - ``lake`` 792/172/659: the background half trains, the evaluation half tests. The original
      validates on nothing: here the five background alphabets do that validate in ``vinyals``.
    - ``meta_dataset`` 883/81/659, by alphabet 25/5/20 (arXiv:1903.03096): the five smallest
      alphabets of the background half validate, the evaluation half tests.

    The drawings are 1-bit, so they are made grey and shrunk by an anti-aliased bilinear filter: it
    keeps the amount of ink, commutes with rotation (to one grey level) and, of Pillow's filters,
    leaves drawings of a character most alike: 1-nearest-neighbour on the pixels of the evaluation
    half, 5-way 1-shot, is right in 45 %; Lanczos and bicubic 43 %, box 42 %, nearest neighbour 37 %
    (what Pillow makes of any filter on 1-bit images, so also in MAML's script).

    Args:
        root: holds ``images_background.zip`` and ``images_evaluation.zip``, or the folders they
            unpack to, itself or in ``omniglot-py/`` (torchvision's place), ``omniglot/`` or
            ``omniglot/omniglot-py/``. Only `download` writes into it.
        cache: folder of the decoded images (25 MB), so that the next run starts in less than a
            second. They answer for the very files of `root` that they were decoded from.
        split: which characters train, validate and test.
        split_seed: seeds the shuffle of ``maml``.
        download: fetch what is missing into ``root/omniglot-py``.

    Returns:
        train, val and test: images uint8 (n, 1, 28, 28), 20 a class; the classes are called
        ``Angelic/character01/rot090`` (degrees, anticlockwise).

    Raises:
        FewshotError: files are missing, truncated or not Omniglot's, or the download fails.
    """
    if download:
        _download(root)
    path = cache_file(root, cache)
    if not path.is_file() and (cache / BEFORE).is_file():
        log.warning("%s is of an earlier version and not used any more; delete it", cache / BEFORE)
    arrays = cached_arrays(path, lambda: _decode_all(root))
    images = arrays["images"].astype(np.uint8, copy=False)  # (characters, 20, H, W)
    characters = [str(name) for name in arrays["characters"]]
    parts = split_characters(characters, split, split_seed)
    return {
        part: _class_dataset(
            images[members], [characters[m] for m in members], 4 if part in ROTATED[split] else 1
        )
        for part, members in parts.items()
    }


def cache_file(root: Path, cache: Path) -> Path:
    """Where the decoded drawings of a root's files are kept: another place for other files.

    Raises:
        FewshotError: the root does not hold Omniglot.
    """
    made_from = fingerprint_of(find_sources(root).values(), root)[:16]
    return cache / f"omniglot_{SIZE}x{SIZE}_bilinear_v{FORMAT}-{made_from}.npz"


def _class_dataset(images: Images, characters: Sequence[str], turns: int) -> ClassDataset:
    """Make each of the first `turns` quarter turns of (c, 20, H, W) a class.

    Turning pixels loses nothing.
    """
    turned = np.stack([np.rot90(images, turn, axes=(-2, -1)) for turn in range(turns)], axis=1)
    return ClassDataset(
        torch.from_numpy(turned.reshape(-1, 1, SIZE, SIZE)),
        np.full(len(characters) * turns, DRAWINGS, np.int64),
        tuple(
            f"{c.partition('/')[2]}/rot{90 * turn:03d}" for c in characters for turn in range(turns)
        ),
    )


def _decode_all(root: Path) -> dict[str, NDArray[np.generic]]:
    """Read both halves: images (characters, 20, H, W), sorted characters.

    The characters are sorted by (alphabet, character).
    """
    drawings = read_drawings(root)
    log.info("decoding Omniglot from %s: a few seconds, once", root)
    order = sorted(drawings, key=lambda name: name.split("/")[1:])
    images = np.stack([_decode(drawings[name]) for name in order]).reshape(-1, DRAWINGS, SIZE, SIZE)
    return {
        "images": images,
        "characters": np.array([n.rpartition("/")[0] for n in order[::DRAWINGS]]),
    }


def read_drawings(root: Path) -> dict[str, Encoded]:
    """The PNG files of all drawings by ``half/alphabet/character/file``; see `load_omniglot`.

    Raises:
        FewshotError: files are missing, truncated or not Omniglot's.
    """
    drawings: dict[str, Encoded] = {}
    for half, source in find_sources(root).items():
        files = _read_zip(source, half) if source.suffix == ".zip" else _read_folder(source)
        _verify(files, source, half)
        drawings.update(
            {f"{half}/{name}": Encoded(files[name], f"{source}/{name}") for name in sorted(files)}
        )
    return drawings


def find_sources(root: Path) -> dict[str, Path]:
    """The zip file or folder of each half.

    Raises:
        FewshotError: one is missing.
    """
    sources: dict[str, Path] = {}
    for half in HALVES:
        source = _source(root, half)
        if source is None:
            raise FewshotError(
                f"{root} does not hold Omniglot: expected {half}.zip or the folder {half} there or"
                f" in {root / 'omniglot-py'}; put it there, correct the root or set `download:"
                " true`"
            )
        sources[half] = source
    return sources


def _source(root: Path, half: str) -> Path | None:
    """The zip file or folder of a half.

    Zip files first: they have checksums and are never half unpacked.
    """
    places = [
        folder / below for folder in (root, root / "omniglot") for below in ("omniglot-py", "")
    ]
    zips = [p / f"{half}.zip" for p in places if (p / f"{half}.zip").is_file()]
    return next(iter(zips + [p / half for p in places if (p / half).is_dir()]), None)


def _download(root: Path) -> None:
    for half in HALVES:
        source = _source(root, half)
        if source is None or (source.suffix == ".zip" and not zipfile.is_zipfile(source)):
            from torchvision.datasets import Omniglot as facts  # here: it takes a second

            url = f"{facts.download_url_prefix}/{half}.zip"
            fetch(url, root / "omniglot-py" / f"{half}.zip", facts.zips_md5[half], "md5")


def _read_zip(archive: Path, half: str) -> dict[str, bytes]:
    """The drawings of a zip file by ``alphabet/character/file``."""
    pattern = re.compile(rf"(?:^|/){half}/([^/]+/[^/]+/[^/.][^/]*\.png)$")
    with opened_zip(archive) as file:
        members = {match[1]: name for name in file.namelist() if (match := pattern.search(name))}
        return {key: file.read(name) for key, name in members.items()}


def _read_folder(folder: Path) -> dict[str, bytes]:
    """The drawings of an unpacked half by ``alphabet/character/file``."""
    try:
        return {
            p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.glob("*/*/[!.]*.png")
        }
    except OSError as error:
        raise FewshotError(
            f"cannot read Omniglot's drawings ({error}); correct the access rights"
        ) from error


def _verify(files: dict[str, bytes], source: Path, half: str) -> None:
    """Check the content, not the archive's checksum: re-packed archives are as good."""
    drawings = Counter(name.rpartition("/")[0] for name in files)
    for character, count in sorted(drawings.items()):
        if count != DRAWINGS:
            raise FewshotError(
                f"{source / character} holds {count} drawings, expected {DRAWINGS}; {REMEDY}"
            )
    counts = (len({name.split("/")[0] for name in drawings}), len(drawings))
    if counts != HALVES[half]:
        raise FewshotError(
            f"{source} holds {counts[0]} alphabets and {counts[1]} characters,"
            f" expected {HALVES[half][0]} and {HALVES[half][1]}; {REMEDY}"
        )


def _decode(drawing: Encoded) -> Images:
    """One drawing as (28, 28), ink bright."""
    path = drawing.name
    try:
        with Image.open(io.BytesIO(drawing.content)) as image:
            grey = image.convert("L")
    except Exception as error:  # Pillow passes on whatever the format's parser raises
        raise FewshotError(f"{path} is truncated or corrupt ({error}); {REMEDY}") from error
    if grey.size != (PIXELS, PIXELS):
        raise FewshotError(
            f"{path} is {grey.width}x{grey.height}, expected {PIXELS}x{PIXELS}; {REMEDY}"
        )
    return 255 - np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
