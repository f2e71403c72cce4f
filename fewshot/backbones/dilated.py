"""torchvision's ResNets and VGGs as feature maps at an eighth of the size, for segmentation."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone, checked_images
from fewshot.backbones.pretrained import standardised
from fewshot.backbones.torchvision_model import build_network, find_weights
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

if TYPE_CHECKING:
    from torchvision import models

STRIDE = 8


class DilatedNetwork(Backbone):
    """DilatedNetwork: a ResNet (50 layers or more) or VGG whose last stages dilate, not halve.

    The maps have an eighth of the images' size, the weights are the classification network's:
    pre-trained on ImageNet they are what few-shot segmentation starts from (PANet: ``vgg16``; later
    ``resnet50``). As in PANet, the VGG has no last ReLU, so that features have both signs. Batch
    normalisation is the network's own. Paper: arXiv:1706.05587.

    Args:
        in_channels: C of the images: 1 or 3; grey ones are repeated to three channels.
        image_size: H = W of the images, in pixels.
        model: ``vgg16``, ``resnet50`` or one of their kind, as `torchvision.models` calls it.
        weights: null for random ones, ``DEFAULT`` for the best there are, or a name such as
            ``IMAGENET1K_V1``; fetched once into ``$TORCH_HOME``.

    Raises:
        FewshotError: a network that does not dilate, an unknown name, or weights that cannot be
            fetched.
    """

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 417,
        model: str = "resnet50",
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if in_channels not in (1, 3):
            raise FewshotError(
                f"in_channels is {in_channels}; torchvision's networks take images of 1 or 3"
                " channels"
            )
        if image_size < STRIDE:
            raise FewshotError(
                f"image_size is {image_size}; the maps have an eighth of it, use {STRIDE} px or"
                " more"
            )
        self.in_channels, self.image_size = in_channels, image_size
        chosen = find_weights(model, weights)
        self.network, self.out_features = maps_network(model, chosen)
        preset = None if chosen is None else chosen.transforms()
        self.mean: Tensor | None
        self.std: Tensor | None
        for name in ("mean", "std"):
            values = None if preset is None else torch.tensor(getattr(preset, name)).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)
        with torch.no_grad():  # VGG's pooling rounds down, ResNet's convolutions up
            self.network.eval()
            size = self.network(torch.zeros(1, 3, image_size, image_size)).shape[-1]
            self.network.train()
        self.map_shape = (self.out_features, size, size)

    def forward(self, inputs: Inputs) -> Tensor:
        """The mean of the maps (n, out_features) of images (n, C, H, W) in [0, 1]."""
        return self.maps(inputs).mean((2, 3))

    def maps(self, inputs: Inputs) -> Tensor:
        """The last maps (n, *map_shape) of images (n, C, H, W) in [0, 1]."""
        images = checked_images(inputs, self.in_channels, self.image_size, "DilatedNetwork")
        maps: Tensor = self.network(standardised(images.expand(-1, 3, -1, -1), self.mean, self.std))
        return maps


def maps_network(model: str, weights: "models.WeightsEnum | None") -> tuple[nn.Module, int]:
    """The network up to its last maps, at an eighth of the size, and their number of channels."""
    if model.startswith("vgg"):
        features: Any = build_network(model, weights).features  # a Sequential
        return dilated_vgg(list(features)), 512
    try:
        network: Any = build_network(  # a ResNet: no other takes this argument
            model, weights, replace_stride_with_dilation=[False, True, True]
        )
    except (TypeError, ValueError, NotImplementedError) as error:
        raise FewshotError(
            f"{model} does not dilate ({error}); choose resnet50 or larger, or vgg16"
        ) from error
    width: int = network.fc.in_features
    # Modules, not the whole: the classifier has no part in it, and would have parameters without a
    # gradient.
    return nn.Sequential(*list(network.children())[:-2]), width


def dilated_vgg(layers: list[nn.Module]) -> nn.Sequential:
    """VGG's features, halved thrice: the fourth pooling keeps the size, later layers dilate by 2.

    The fifth pooling and the ReLU before it are left out.
    """
    kept: list[nn.Module] = []
    pools = 0
    for layer in layers[:-2]:
        if isinstance(layer, nn.MaxPool2d):
            pools += 1
            layer = nn.MaxPool2d(3, stride=1, padding=1) if pools == 4 else layer
        elif isinstance(layer, nn.Conv2d) and pools == 4:
            layer.dilation, layer.padding = (2, 2), (2, 2)
        kept.append(layer)
    return nn.Sequential(*kept)
