"""What benchmarks of published images share: the files are the original's, unless the user accepts others."""

from typing import Any

from fewshot.datamodules.base import ImageDataModule


class PublishedImageDataModule(ImageDataModule):
    """A benchmark of published images.

    Args:
        verify: accept the original's files (or numbers of images) only. Without it a part of them will do, and the
            results say so.
        queries: query examples a class.
        **kwargs: arguments of `ClassificationDataModule`.
    """

    def __init__(self, verify: bool = True, queries: int = 15, **kwargs: Any) -> None:
        super().__init__(queries=queries, **kwargs)
        self.verify = verify

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result; of unverified data how many images there are."""
        if self.verify:
            return super().protocol()
        images = {stage: int(split.counts.sum()) for stage, split in (self._datasets or {}).items()}
        return {**super().protocol(), "verified": False, "images": images}
