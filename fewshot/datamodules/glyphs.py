"""Glyphs: the embedded benchmark; works offline, nothing to download."""

from typing import Any, ClassVar

from fewshot.arguments import Count
from fewshot.datamodules.images import ImageDataModule
from fewshot.datasets.glyphs import load_glyphs
from fewshot.episodes.class_dataset import ClassDataset


class GlyphsDataModule(ImageDataModule):
    """Glyphs: letters of many scripts, rendered from fonts that are already installed.

    Unseen scripts at test.

    28x28 grey images, 20 a class, train, validation and test disjoint in characters and in scripts.
    Generated in seconds at first use, cached under the data root. Paper: none, it ships with
    fewshot.

    Args:
        queries: query examples a class.
        **kwargs: arguments of `ImageDataModule`.
    """

    benchmark: ClassVar[str] = "Glyphs"
    can_download: ClassVar[bool] = False
    in_channels = 1
    image_size = 28
    bright_ink = True

    def __init__(self, queries: Count = 15, **kwargs: Any) -> None:
        super().__init__(queries=queries, **kwargs)

    @property
    def split_name(self) -> str:
        """The one split: by script."""
        return "scripts"

    def load(self) -> dict[str, ClassDataset]:
        """The three script-disjoint splits."""
        return load_glyphs(self.root)
