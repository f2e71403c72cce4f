"""What files of a user's own are: images or texts."""

import os
from pathlib import Path
from typing import Literal, TypeAlias

from fewshot.datasets.reading.folders import is_image
from fewshot.errors import FewshotError

Kind: TypeAlias = Literal["image", "text"]
NETWORKS: dict[Kind, str] = {"image": "efficientnet_lite0", "text": "all_minilm_l6_v2"}
"""A network of each kind that needs no download, for messages."""


def kind_of(source: Path) -> Kind | None:
    """What a file is, or those in and below a folder, by their names; None where none tells.

    A text beside images is a note.
    """
    names = [source.name]
    if source.is_dir():
        names = [name for _, _, files in os.walk(source, followlinks=False) for name in files]
    if any(is_image(name) for name in names):
        return "image"
    texts = any(name.endswith(".txt") and not name.startswith(".") for name in names)
    return "text" if texts else None


def check_kind(source: Path, kind: str) -> None:
    """Check that a file or a folder does not hold what a network of another `kind` reads.

    Raises:
        FewshotError: images are given to a network of texts, or texts to one of images.
    """
    found = kind_of(source)
    if found is not None and found != kind and kind in NETWORKS:
        raise FewshotError(
            f"{source} holds {found}s, and the network reads {kind}s; give it {kind}s, or take one"
            f" of {found}s, such as --backbone {NETWORKS[found]}"
        )
