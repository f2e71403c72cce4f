"""What the benchmarks of images share: conversion, augmentation and normalisation on the device."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from fewshot.arguments import Share
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datamodules.classification import ClassificationDataModule
from fewshot.datasets.preprocessing import ImagePreprocessing, as_float
from fewshot.engine.augmentation import Augmentation
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import TaskDistribution
from fewshot.episodes.new_classes import MixedClassTasks, with_turned_classes
from fewshot.episodes.streams import STAGES, ExampleStream, Stage
from fewshot.episodes.types import Examples, Inputs, TrainingBatch
from fewshot.errors import FewshotError


class FloatImages(EpisodicDataModule):
    """Images are stored as uint8 and converted to float in [0, 1] once a meta-batch, on the device.

    Facts for backbones: `in_channels`, `image_size`, `in_features`; for `fewshot predict`,
    `preprocessing`.
    """

    facts: ClassVar[tuple[str, ...]] = ("in_channels", "image_size", "in_features")
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {"class_path": "fewshot.Conv4"}
    in_channels: int
    image_size: int
    bright_ink: ClassVar[bool] = False
    """Whether images are drawings in bright ink on dark, where files have dark ink on light."""

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """Files become images of this size and these channels, in [0, 1]."""
        channels: Literal[1, 3] = 1 if self.in_channels == 1 else 3
        return ImagePreprocessing(self.image_size, channels, invert=self.bright_ink).facts()

    @property
    def in_features(self) -> int:
        """Values of an image, for backbones that flatten it."""
        return self.in_channels * self.image_size**2

    def on_after_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """Convert the images (uint8) of a meta-batch, or of plain examples, to float in [0, 1]."""
        return self._precise(batch.map(_as_float))

    def _precise(self, batch: TrainingBatch) -> TrainingBatch:
        """The batch in the Trainer's precision.

        It was converted before, except what was uint8 then.
        """
        if not self.trainer:
            return batch
        converted: TrainingBatch = self.trainer.precision_plugin.convert_input(batch)
        return converted


class ImageBatches(FloatImages):
    """Images that are augmented in training and normalised, on the device.

    What is drawn for an episode is a function of the seed and its number, whatever the ranks and
    the interruptions.

    Args:
        augment: random changes of training images, such as ``{padding: 4, flip: true}``; None:
            none.
        augment_query: the same for the queries alone; None: as `augment`. ``{}`` leaves them as
            they are.
        normalize: subtract `mean` and divide by `std`, the benchmark's constants for each channel.
        **kwargs: arguments of the next base.
    """

    mean: ClassVar[tuple[float, ...] | None] = None
    """Of the training images in [0, 1], for each channel."""
    std: ClassVar[tuple[float, ...] | None] = None

    def __init__(
        self,
        augment: Augmentation | None = None,
        augment_query: Augmentation | None = None,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if normalize and self.mean is None:
            raise FewshotError(
                f"{self.benchmark} has no constants to normalise by; leave out normalize: true"
            )
        self.augment, self.normalize = augment, normalize
        self.augment_query = augment if augment_query is None else augment_query

    @property
    def preprocessing(self) -> dict[str, Any] | None:
        """Files become images of this size and these channels, in [0, 1] or normalised."""
        facts = super().preprocessing
        if facts is not None and self.normalize:
            facts |= {"mean": self.mean and list(self.mean), "std": self.std and list(self.std)}
        return facts

    @property
    def augments(self) -> bool:  # type: ignore[override]  # a fact of the arguments here
        """Whether training changes images at random."""
        return self.augment is not None or self.augment_query is not None

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result; what was done to the images among them."""
        augmented = {
            name: vars(how) for name in ("augment", "augment_query") if (how := getattr(self, name))
        }
        return {
            **super().protocol(),
            **augmented,
            **({"normalize": True} if self.normalize else {}),
        }

    def on_after_batch_transfer(self, batch: TrainingBatch, dataloader_idx: int) -> TrainingBatch:
        """Convert the images (uint8) of a meta-batch, or of plain examples, to float.

        Augment them in training, normalise them.
        """
        batch = batch.map(_as_float)
        if self.augments and self.trainer and self.trainer.training:
            batch = batch.map_parts(partial(self._augmented, batch.unit))
        if self.normalize:
            mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (self.mean, self.std))
            batch = batch.map(
                lambda part: part._replace(inputs=_normalized(part.inputs, mean, std))
            )
        return self._precise(batch)

    def _augmented(
        self, unit: str, parts: list[Examples], numbers: Tensor | None
    ) -> list[Examples]:
        """Float images, augmented: the support and the query of episodes, or plain examples.

        Args:
            unit: which of the two, as a batch says.
            parts: the images.
            numbers: of the episodes or examples, (b,).
        """
        assert numbers is not None  # the loader has numbered them
        # a fourth number in the seed, so that no episode is drawn with these generators
        stage = len(STAGES) if unit == "examples" else STAGES.index("train")
        seeds = ([self.seed, stage, number, 2] for number in numbers.tolist())
        rngs = [np.random.default_rng(seed) for seed in seeds]
        how = (self.augment, self.augment_query)
        return [_changed(part, by, rngs) for part, by in zip(parts, how, strict=False)]


def _changed(
    part: Examples, augmentation: Augmentation | None, rngs: Sequence[np.random.Generator]
) -> Examples:
    """Float images, the same number for each generator, augmented."""
    if augmentation is None:
        return part
    assert isinstance(part.inputs, Tensor)
    images = part.inputs.flatten(0, -4)
    drawn = torch.cat([augmentation.draw(rng, len(images) // len(rngs)) for rng in rngs])
    return part._replace(inputs=augmentation(images, drawn).view(part.inputs.shape))


def _as_float(part: Examples) -> Examples:
    return part._replace(inputs=as_float(part.inputs))


def _normalized(images: Inputs, mean: Tensor, std: Tensor) -> Tensor:
    assert isinstance(images, Tensor)
    return (images - mean.to(images)) / std.to(images)


class ImageDataModule(ImageBatches, ClassificationDataModule):
    """A benchmark of N-way K-shot classification of images.

    Args:
        rotation_classes: each training class turned by 90, 180 and 270 degrees is a further class
            (arXiv:2003.00804); for images in which up and down matter little or much, not for those
            that look alike turned.
        class_mixing: share of the classes of training episodes that are mixes of two classes, their
            images means of an image of each (arXiv:2010.07092); 0: none.
        **kwargs: arguments of `ImageBatches` and `ClassificationDataModule`.
    """

    items = "image"

    def __init__(
        self, rotation_classes: bool = False, class_mixing: Share = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.rotation_classes, self.class_mixing = rotation_classes, class_mixing
        others = {
            "ways": self.ways,
            "shots": self.shots,
            "unequal_shots": self.unequal_shots,
            "label_assignment: fixed": self.label_assignment == "fixed",
        }
        for name, given in others.items():
            if class_mixing and given:
                raise FewshotError(f"class_mixing does not go with {name}; leave one of them out")

    @property
    def augments(self) -> bool:  # type: ignore[override]  # as above
        """Whether training changes images at random, which mixing does."""
        return super().augments or self.class_mixing > 0

    def with_new_classes(self, read: dict[str, ClassDataset]) -> dict[str, ClassDataset]:
        """The classes in use: in training those of turned images too, where that is asked for."""
        return (
            {**read, "train": with_turned_classes(read["train"])} if self.rotation_classes else read
        )

    def tasks(self, stage: Stage) -> TaskDistribution:
        """N-way K-shot tasks over the stage's classes, or in training over mixes of them."""
        if stage == "train" and self.class_mixing:
            return MixedClassTasks(self.datasets[stage], *self.sizes(stage), self.class_mixing)
        return super().tasks(stage)

    def example_stream(self) -> ExampleStream:
        """The endless list of training examples.

        Raises:
            FewshotError: `class_mixing` makes classes of training, which has no episodes.
        """
        if self.class_mixing:
            raise FewshotError(
                "class_mixing makes classes of training episodes, but this learner trains on plain"
                " examples; leave class_mixing out"
            )
        return super().example_stream()

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the training's further classes among them."""
        turned = {"rotation_classes": True} if self.rotation_classes else {}
        mixed = {"class_mixing": self.class_mixing} if self.class_mixing else {}
        return {**super().protocol(), **turned, **mixed}
