"""What published image benchmarks share: original files, unless the user accepts others."""

from typing import Any, ClassVar

from fewshot.arguments import Count
from fewshot.datamodules.images import ImageDataModule


class PublishedImageDataModule(ImageDataModule):
    """A benchmark of published images.

    Args:
        verify: accept the original's files (or numbers of images) only. Without it a part of them
            will do, and the results say so.
        queries: query examples a class.
        **kwargs: arguments of `ImageDataModule`.
    """

    def __init__(self, verify: bool = True, queries: Count = 15, **kwargs: Any) -> None:
        super().__init__(queries=queries, **kwargs)
        self.verify = verify

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result.

        Of unverified data how many images there are.
        """
        if self.verify:
            return super().protocol()
        images = {stage: int(split.counts.sum()) for stage, split in (self._datasets or {}).items()}
        return {**super().protocol(), "verified": False, "images": images}


class PackedImageDataModule(PublishedImageDataModule):
    """A benchmark of many image files, packed once into a memory-mapped store.

    The store is in the data root's cache.

    Args:
        image_size: side in pixels.
        **kwargs: arguments of `PublishedImageDataModule`.
    """

    can_download: ClassVar[bool] = False
    in_channels = 3
    image_size: int

    def __init__(self, image_size: Count = 84, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.verify_store = False

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the size among them."""
        return {**super().protocol(), "image_size": self.image_size}

    def prepare(self) -> None:
        """Pack the images, or check every packed one and mend those that are corrupt."""
        self._datasets, self.verify_store = None, True
        try:
            super().prepare()
        finally:
            self.verify_store = False
