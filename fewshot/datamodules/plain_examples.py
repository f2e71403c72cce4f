"""Images and texts without labels as benchmarks whose classes are the examples."""

from typing import Literal

import numpy as np
import torch

from fewshot.datamodules.images import ImageDataModule
from fewshot.datamodules.text import TextDataModule
from fewshot.datasets.reading.texts import TermSplitter, TextData, encode_texts
from fewshot.datasets.unlabelled import read_images, read_texts, split_examples
from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.episodes.streams import Stage
from fewshot.episodes.unlabelled import as_classes

HELD_OUT = 0.1, 0.1
"""Shares of examples without labels that validate and test, where no labelled ones do."""


class UnlabelledImages(ImageDataModule):
    """Images of a folder, each a class.

    Args:
        root: the folder.
        image_size: H = W in pixels.
        channels: 3 for RGB, 1 for grey.
        way: classes of an episode.
        skip_broken: leave out images that cannot be decoded.
    """

    benchmark, can_download = "UnlabelledImages", False

    def __init__(
        self, root: str, image_size: int, channels: Literal[1, 3], way: int, skip_broken: bool
    ) -> None:
        super().__init__(root=root, way=way)
        self.image_size, self.in_channels, self.channels = image_size, channels, channels
        self.skip_broken = skip_broken

    def check(self, stage: Stage, split: ClassDataset) -> None:
        """The parts are as large as their tasks."""

    def load(self) -> dict[str, ClassDataset]:
        """The images of train, val and test."""
        inputs = read_images(self.root, self.image_size, self.channels, self.skip_broken)
        assert not isinstance(inputs, dict)
        parts = split_examples(len(inputs), HELD_OUT, self.way)
        datasets = [as_classes(_rows(inputs, rows)) for rows in parts]
        return dict(zip(("train", "val", "test"), datasets, strict=True))


class UnlabelledTexts(TextDataModule):
    """Texts of a file or a folder, each a class.

    Args:
        root: the file or the folder.
        way: classes of an episode.
    """

    benchmark, can_download = "UnlabelledTexts", False

    def __init__(self, root: str, way: int) -> None:
        super().__init__(root=root, way=way)

    def check(self, stage: Stage, split: ClassDataset) -> None:
        """The parts are as large as their tasks."""

    def read(self) -> TextData:
        """The texts of train, val and test, each a class of its own."""
        texts, splitter = read_texts(self.root), TermSplitter(self.options)
        parts = split_examples(len(texts), HELD_OUT, self.way)
        of = {
            stage: {f"example {row}": [splitter.split(texts[row])] for row in rows.tolist()}
            for stage, rows in zip(("train", "val", "test"), parts, strict=True)
        }
        return encode_texts(of, splitter)


def _rows(inputs: torch.Tensor | LazyInputs, rows: np.ndarray) -> torch.Tensor | LazyInputs:
    return inputs.select(rows) if isinstance(inputs, LazyInputs) else inputs[torch.from_numpy(rows)]
