"""Random changes of training images, drawn per image and applied to whole batches on the device.

torchvision's transforms (v2) draw once a batch, so that all its images would change alike; these
agree with their functional forms image by image (tested). What is drawn is a function of the random
generator alone, not of the device.

Shapes: n images, C channels, H height, W width.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Natural, NonNegative, Part
from fewshot.hyperparameters import ChecksArguments

GREY = (0.2989, 0.587, 0.114)
"""Shares of red, green and blue in a grey value, as in torchvision."""


@dataclass(frozen=True)
class Augmentation(ChecksArguments):
    """What is drawn for each image; the defaults change nothing.

    Args:
        padding: black pixels around the image, of which a random window of its size is cut.
        flip: mirror every other image, left to right.
        brightness: the image times a factor from [max(0, 1 - brightness), 1 + brightness].
        contrast: the same, of the distance to the mean grey value.
        saturation: the same, of the distance to the grey image.
        probability: of an image that it is changed at all.
    """

    padding: Natural = 0
    flip: bool = False
    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    probability: Part = 1.0

    def draw(self, rng: np.random.Generator, images: int) -> Tensor:
        """What to do to n images, (n, 6): top, left, mirrored, brightness, contrast, saturation.

        What is drawn for one of them does not depend on which others are in use.
        """
        uniform = rng.random((images, 6))
        strengths = np.array([self.brightness, self.contrast, self.saturation])
        low, high = np.maximum(0, 1 - strengths), 1 + strengths
        drawn = np.concatenate(
            [
                np.floor(uniform[:, :2] * (2 * self.padding + 1)),
                uniform[:, 2:3] < (0.5 if self.flip else 0.0),
                low + uniform[:, 3:] * (high - low),
            ],
            1,
        )
        if self.probability < 1:
            unchanged = [self.padding, self.padding, 0, 1, 1, 1]
            drawn[rng.random(images) >= self.probability] = unchanged
        return torch.from_numpy(drawn.astype(np.float32))

    def __call__(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Change float images (n, C, H, W) in [0, 1] by `drawn` (n, 6), on the images' device."""
        drawn = drawn.to(images.device)
        if self.padding or self.flip:
            images = window(images, self.padding, drawn[:, :2].long(), drawn[:, 2].bool())
        brightness, contrast, saturation = (
            factor.view(-1, 1, 1, 1) for factor in drawn[:, 3:].unbind(1)
        )
        if self.brightness:
            images = (images * brightness).clamp(0, 1)
        if self.contrast:
            images = blend(images, grey(images).mean((1, 2, 3), keepdim=True), contrast)
        if self.saturation and images.shape[1] == 3:  # a grey image has none
            images = blend(images, grey(images), saturation)
        return images


def window(images: Tensor, padding: int, corners: Tensor, mirrored: Tensor) -> Tensor:
    """Windows at `corners` (n, 2) of padded images (n, C, H, W), mirrored by (n,); one gather."""
    n, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = corners[:, :1] + torch.arange(height, device=images.device)
    columns = corners[:, 1:] + torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], columns.flip(1), columns)
    image = torch.arange(n, device=images.device).view(-1, 1, 1, 1)
    channel = torch.arange(channels, device=images.device).view(-1, 1, 1)
    return padded[image, channel, rows[:, None, :, None], columns[:, None, None]]


def grey(images: Tensor) -> Tensor:
    """The grey values (n, 1, H, W) of images (n, C, H, W) with one or three channels."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)


def blend(images: Tensor, others: Tensor, factor: Tensor) -> Tensor:
    """`factor` of the images and 1 - `factor` of the others, in [0, 1]."""
    return (factor * images + (1 - factor) * others).clamp(0, 1)
