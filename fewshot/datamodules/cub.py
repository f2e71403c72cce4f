"""CUB-200-2011: birds."""

from typing import Any, ClassVar

from fewshot.datamodules.published import PackedImageDataModule
from fewshot.datasets.cub import CubSplit, load_cub
from fewshot.datasets.reading.downloads import data_root
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError


class CUBDataModule(PackedImageDataModule):
    """CUB: 200 kinds of birds (CUB-200-2011), 11 788 photographs, fine-grained.

    Paper: Wah et al., 2011.

    Three splits are in use, with and without the box around the bird: results compare only where
    both are the same.

    Args:
        split: ``closer_look`` (100/50/50, arXiv:1904.04232), ``meta_dataset`` (140/30/30,
            arXiv:1903.03096) or ``feat`` (100/50/50, arXiv:1812.03664).
        crop: take the box around the bird alone, resized to the square.
        **kwargs: arguments of `PackedImageDataModule`.
    """

    benchmark: ClassVar[str] = "CUB"
    mean = (0.485, 0.456, 0.406)  # ImageNet's, which the literature takes here
    std = (0.229, 0.224, 0.225)

    def __init__(self, split: CubSplit = "closer_look", crop: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.split, self.crop = split, crop
        if self.listed and crop:
            raise FewshotError(
                f"crop is on, but the images of {self.listed.name} are taken whole; cut the boxes"
                " out of them and set crop: false"
            )

    @property
    def split_name(self) -> str:
        """Which kinds train, validate and test."""
        return self.split

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the crop among them."""
        return {**super().protocol(), "crop": self.crop}

    def load(self) -> dict[str, ClassDataset]:
        """The kinds of train, val and test."""
        cache = data_root(None) / "cub"
        return load_cub(
            self.root, cache, self.split, self.crop, self.image_size, self.verify, self.verify_store
        )
