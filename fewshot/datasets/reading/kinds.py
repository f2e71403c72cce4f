"""What files of a user's own are: images or texts."""

from pathlib import Path
from typing import Literal, TypeAlias

from fewshot.datasets.reading.folders import HEIC_FILE, is_image, is_visible, walked
from fewshot.datasets.reading.text_tables import ENDINGS
from fewshot.errors import FewshotError

Kind: TypeAlias = Literal["image", "text"]
NETWORKS: dict[Kind, str] = {"image": "efficientnet_lite0", "text": "all_minilm_l6_v2"}
"""A network of each kind that needs no download, for messages."""


def counted_kinds(source: Path) -> dict[Kind, int]:
    """How many images and texts a file is, or are in and below a folder, by their names."""
    names = [source.name]
    if source.is_dir():
        names = [name for _, of in walked(source) for name in of if is_visible(name)]
    # a photograph that nothing installed here reads is one all the same
    images = sum(is_image(name) or HEIC_FILE.fullmatch(name) is not None for name in names)
    return {"image": images, "text": sum(map(_is_text, names))}


def kind_of(source: Path) -> Kind | None:
    """What a file is, or those in and below a folder, by their names; None where none tells.

    A few texts beside images are notes, an image beside many texts is a picture of them.
    """
    number = counted_kinds(source)
    if number["text"] > 2 * number["image"]:
        return "text"
    return "image" if number["image"] else None


def check_kind(source: Path, kind: str) -> None:
    """Check that a file or a folder does not hold what a network of another `kind` reads.

    Raises:
        FewshotError: images are given to a network of texts, or texts to one of images.
    """
    found = kind_of(source)
    if found in (None, kind) or kind not in NETWORKS:
        return
    assert found is not None
    if kind == "image" and counted_kinds(source)["image"]:
        return  # with many notes
    raise FewshotError(
        f"{source} holds {found}s, and the network reads {kind}s; give it {kind}s, or take one"
        f" of {found}s, such as --backbone {NETWORKS[found]}"
    )


def _is_text(name: str) -> bool:
    return name.lower().endswith((".txt", *ENDINGS))
