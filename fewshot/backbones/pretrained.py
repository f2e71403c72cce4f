"""What backbones with published weights share: standing still, and how they see images."""

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from fewshot.backbones.base import Backbone, checked_images
from fewshot.backbones.channels_last import channels_last
from fewshot.engine.normalization import own_averages
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

Interpolation: TypeAlias = Literal["bilinear", "bicubic"]
"""How images are resized."""
KNOWN: dict[str, Interpolation] = {"bilinear": "bilinear", "bicubic": "bicubic"}
"""By published names; the few networks of others see images bilinearly resized."""
ShortNames: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Arguments by a short name, such as ``{"resnet18": {"model": "resnet18"}}``."""


class PretrainedBackbone(Backbone):
    """A backbone with published weights, which may be frozen.

    `frozen` ones have the same features for an example whatever else is asked: nothing of them
    trains, batch normalisation keeps its averages, nothing is dropped, and features of inputs carry
    no graph.
    """

    short_names: ClassVar[ShortNames] = {}
    """What the command line knows by a name of its own; written out, because it is read from the
    source."""

    frozen: bool = False
    unread: tuple[str, ...] = ()
    """Parameters that features are not made of, by name; no inner loop adapts them."""

    def freeze(self) -> None:
        """Let nothing train from now on."""
        self.frozen = True
        # Lightning asks, when training starts, whether that is intended: it is
        warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Take on a mode; a frozen network stays in evaluation."""
        return super().train(mode and not self.frozen)


class PretrainedVision(PretrainedBackbone):
    """A network of others on images, which sees them as its training did.

    Images come in [0, 1]. Grey ones are repeated to three channels. They are resized to the
    network's side and normalised on their own device. So both are part of what is exported.

    A subclass hands its network over by `take`, and says in `features` what it gives.

    Args:
        in_channels: C of the images: 1 or 3.
        image_size: H = W of the images, in pixels.

    Raises:
        FewshotError: another number of channels.
    """

    mean: Tensor | None
    std: Tensor | None
    interpolation: Interpolation = "bilinear"

    def __init__(self, in_channels: int, image_size: int) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise FewshotError(
                f"in_channels is {in_channels}; {type(self).__name__} takes images of 1 or 3"
                " channels"
            )
        self.in_channels, self.image_size = in_channels, image_size

    def take(
        self,
        network: nn.Module,
        out_features: int,
        side: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
        frozen: bool,
    ) -> None:
        """Become `network`, of so many features.

        Args:
            network: from images (n, 3, side, side) to features.
            out_features: how many.
            side: in pixels, which images are resized to.
            mean: of each channel in its training, taken off; None leaves the images in [0, 1].
            std: of each channel, divided by.
            frozen: let nothing train.
        """
        self.network, self.out_features, self.side = network, out_features, side
        for name, values in (("mean", mean), ("std", std)):
            tensor = None if values is None else torch.tensor(values).view(-1, 1, 1)
            self.register_buffer(name, tensor, persistent=False)
        if frozen:
            self.freeze()

    def see_own_size(self) -> None:
        """Take images of the side that the network reads, so that none is resized twice."""
        self.image_size = self.init_args["image_size"] = self.side

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of images (n, C, H, W) in [0, 1]."""
        name = type(self).__name__
        images = checked_images(inputs, self.in_channels, self.image_size, name)
        if self.side != self.image_size:
            # antialias is what a smaller picture needs; a larger one is the same without
            smaller = self.side < self.image_size
            size = (self.side, self.side)
            images = F.interpolate(images, size, mode=self.interpolation, antialias=smaller)
            if self.interpolation == "bicubic":  # which overshoots at edges
                images = images.clamp(0, 1)
        images = standardised(images.expand(-1, 3, -1, -1), self.mean, self.std)
        if images.device.type == "cpu":  # whose convolutions are up to twice as fast so
            images = channels_last(images)
        with own_averages() if self.frozen else nullcontext():
            return self.features(images)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (n, out_features) of images (n, 3, side, side) as the network knows them."""


def standardised(images: Tensor, mean: Tensor | None, std: Tensor | None) -> Tensor:
    """Images (n, 3, H, W) in [0, 1] as the pre-trained network has learned to see them.

    None: as they are.
    """
    return images if mean is None or std is None else (images - mean) / std


def check_trained(frozen: bool) -> None:
    """Check that there are activations to be computed again.

    Raises:
        FewshotError: the network is frozen.
    """
    if frozen:
        raise FewshotError(
            "checkpoint_blocks is for training, but the network is frozen; leave one of them out"
        )
