"""Omniglot: handwritten characters; the first benchmark of few-shot classification."""

from typing import Any, ClassVar

from fewshot.arguments import Count, Natural
from fewshot.datamodules.images import ImageDataModule
from fewshot.datasets.omniglot import ROTATED, OmniglotSplit, load_omniglot
from fewshot.datasets.reading.downloads import data_root
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError


class OmniglotDataModule(ImageDataModule):
    """Omniglot: 1623 handwritten characters of 50 alphabets, 28x28 grey, 20 drawings a class.

    Ink is bright.

    Four splits are in use and their results do not compare:
    `fewshot.datasets.omniglot.load_omniglot` says what each one is. The decoded drawings are cached
    in ``omniglot/`` under ``$FEWSHOT_DATA`` or the user's cache folder. MAML tests on 600 episodes,
    ProtoNet on 1000. Paper: arXiv:1606.04080 (``vinyals``).

    Args:
        split: ``vinyals`` (rotations are classes, 4112/688/1692), ``maml`` (shuffled characters),
            ``lake`` (background and evaluation alphabets) or ``meta_dataset`` (alphabets).
        split_seed: seeds the shuffle of ``maml``; the other splits are fixed.
        queries: query examples a class; 15 and 5 shots use all 20 drawings.
        **kwargs: arguments of `ImageDataModule`.
    """

    benchmark: ClassVar[str] = "Omniglot"
    in_channels = 1
    image_size = 28
    bright_ink = True

    def __init__(
        self,
        split: OmniglotSplit = "vinyals",
        split_seed: Natural = 1,
        queries: Count = 15,
        **kwargs: Any,
    ) -> None:
        super().__init__(queries=queries, **kwargs)
        self.split, self.split_seed = split, split_seed
        if self.rotation_classes and "train" in ROTATED.get(split, ()):
            raise FewshotError(
                f"the split {split} has turned drawings as classes already; leave rotation_classes"
                " out"
            )

    @property
    def split_name(self) -> str:
        """The split, with its seed where it has one."""
        return f"maml, split_seed {self.split_seed}" if self.split == "maml" else self.split

    def load(self) -> dict[str, ClassDataset]:
        """The characters of train, val and test."""
        cache = data_root(None) / "omniglot"
        return load_omniglot(self.root, cache, self.split, self.split_seed, self.download)
