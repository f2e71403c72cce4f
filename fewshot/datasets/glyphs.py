"""Glyphs: characters of twelve scripts from the fonts that matplotlib ships.

A benchmark without a download.

A class is a character. Its script is what its Unicode name begins with, and each script belongs to
one split. An example is the character in one of up to twelve faces, varied in stroke width, slant,
place and shape (see `glyph_rendering`). The images have Omniglot's form: 20 a class, 28x28, ink
bright on dark.

Which characters: the letters that the reference face and at least three others contain. All twelve
faces have only Latin, Greek, Cyrillic, Armenian and one of the Georgian alphabets in common; with
four there are Hebrew, Arabic, Lao and the Canadian syllabics too, and the variation makes up for
the smaller choice of faces. Left out are modifier letters (raised copies) and whatever Unicode
decomposes into other characters (accented letters, ligatures, positional forms): classes that
differ by an accent alone would be a benchmark of accents.

Of the characters that look alike in the reference face, drawn equally large (Latin A, Greek Alpha,
Cyrillic A; c and C), only one becomes a class. The test split chooses first, then validation: what
a network is judged on was not trained on under another name.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fewshot.datasets.glyph_rendering import (
    EXAMPLES,
    FACES,
    draw,
    faces_by_character,
    fonts_version,
    render_class,
)
from fewshot.datasets.reading.downloads import Arrays, cached_arrays
from fewshot.episodes.class_dataset import ClassDataset

TRAIN_SCRIPTS = ("Latin", "Greek", "Cyrillic", "Coptic", "Canadian Syllabics", "Lisu", "Old Italic")
VAL_SCRIPTS = ("Armenian", "Hebrew")
TEST_SCRIPTS = ("Georgian", "Arabic", "Lao")
SCRIPTS = {"train": TRAIN_SCRIPTS, "val": VAL_SCRIPTS, "test": TEST_SCRIPTS}
MIN_FACES = 4
ALIKE = 0.95
"""The cosine of two blurred reference drawings above which they count as the same shape."""
FORMAT = 1
"""Goes into the cache's name: raise it with every change that changes a byte."""


def script_of(character: str) -> str | None:
    """The script in `SCRIPTS` whose name the character's Unicode name begins with, if any."""
    name = unicodedata.name(character, "")
    scripts = (script for group in SCRIPTS.values() for script in group)
    return next((script for script in scripts if name.startswith(script.upper() + " ")), None)


def class_name(character: str) -> str:
    """Like ``Greek/U+03B1 GREEK SMALL LETTER ALPHA``."""
    return f"{script_of(character)}/U+{ord(character):04X} {unicodedata.name(character)}"


def is_candidate(character: str, faces: Sequence[str]) -> bool:
    """Whether the character, found in `faces`, may become a class (see the module's text)."""
    return (
        FACES[0] in faces
        and len(faces) >= MIN_FACES
        and unicodedata.category(character) in ("Ll", "Lu", "Lo")
        and not unicodedata.decomposition(character)
        and script_of(character) is not None
    )


def similarity(characters: Sequence[str]) -> NDArray[np.float64]:
    """Cosines between the blurred drawings of `characters` in the reference face, (n, n)."""
    drawn = np.stack([draw(character, FACES[0], size_step=1) for character in characters]).astype(
        np.int64
    )
    n, side = len(drawn), drawn.shape[1] // 4
    coarse = np.pad(drawn.reshape(n, side, 4, side, 4).sum((2, 4)) // 16, ((0, 0), (1, 1), (1, 1)))
    blurred = np.sum(
        [coarse[:, i : i + side, j : j + side] for i in range(3) for j in range(3)], axis=0
    )
    # whole numbers far below 2**53, so these float products are exact whatever the order of their
    # summation
    vectors = blurred.reshape(n, -1).astype(np.float64)
    products = vectors @ vectors.T
    return np.asarray(products / np.sqrt(np.outer(products.diagonal(), products.diagonal())))


@lru_cache
def split_characters() -> dict[str, tuple[str, ...]]:
    """The characters of each split in the order of their code points, without lookalikes."""
    candidates = sorted(c for c, faces in faces_by_character().items() if is_candidate(c, faces))
    alike = similarity(candidates) > ALIKE
    kept: list[int] = []
    splits: dict[str, tuple[str, ...]] = {}
    for split in ("test", "val", "train"):
        before = len(kept)
        for i, character in enumerate(candidates):
            if script_of(character) in SCRIPTS[split] and not alike[i, kept].any():
                kept.append(i)
        splits[split] = tuple(candidates[i] for i in kept[before:])
    return splits


def render_glyphs(characters: Mapping[str, Sequence[str]] | None = None) -> Arrays:
    """Generate the images, in about four seconds on one core.

    Args:
        characters: the characters of each split; default: `split_characters`.

    Returns:
        For each split ``<split>_images`` (classes * 20, 1, 28, 28) uint8 with the examples of a
        class side by side, ``<split>_counts`` (classes,) int64 and ``<split>_names`` (classes,).
    """
    arrays: Arrays = {}
    for split, members in (split_characters() if characters is None else characters).items():
        arrays[f"{split}_images"] = np.concatenate(
            [render_class(character) for character in members]
        )
        arrays[f"{split}_counts"] = np.full(len(members), EXAMPLES, np.int64)
        arrays[f"{split}_names"] = np.array([class_name(character) for character in members])
    return arrays


def load_glyphs(root: Path) -> dict[str, ClassDataset]:
    """The splits ``train``, ``val`` and ``test``, cached in ``<root>/glyphs``.

    Raises:
        FewshotError: matplotlib's fonts are missing.
    """
    path = root / "glyphs" / f"v{FORMAT}-{fonts_version()}-unicode{unicodedata.unidata_version}.npz"
    arrays = cached_arrays(path, render_glyphs)
    return {
        split: ClassDataset(
            torch.from_numpy(arrays[f"{split}_images"]),
            arrays[f"{split}_counts"].astype(np.int64),
            tuple(arrays[f"{split}_names"].tolist()),
        )
        for split in SCRIPTS
    }
