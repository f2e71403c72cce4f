"""The few-shot literature's 12-layer ResNet (Lee et al., arXiv:1904.03758) with DropBlock."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Share
from fewshot.backbones.base import Backbone, checked_images
from fewshot.backbones.channels_last import Conv2d, channels_last
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

SLOPE = 0.1  # of LeakyReLU below zero
BLOCK_SIZE = 5  # of DropBlock, in pixels of the map


class ResNet12(Backbone):
    """ResNet-12: four residual blocks of three 3x3 convolutions, then the mean over the map.

    Paper: arXiv:1904.03758.

    The last two blocks drop squares of their maps in training (DropBlock, arXiv:1810.12890).

    Args:
        in_channels: C of the images.
        image_size: H = W of the images, in pixels.
        widths: filters of each block; the last is the number of features.
        drop_block: share of a map that DropBlock drops in training; 0 turns it off.
    """

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 84,
        widths: Sequence[Count] = (64, 160, 320, 640),
        drop_block: Share = 0.1,
    ) -> None:
        super().__init__()
        if len(widths) != 4:
            raise FewshotError(f"widths are {list(widths)}; give four, such as [64, 160, 320, 640]")
        if image_size < 16:
            raise FewshotError(
                f"ResNet12 halves its input four times: image_size {image_size} leaves nothing; use"
                " 16 px or more"
            )
        self.in_channels, self.image_size = in_channels, image_size
        channels = zip(
            pairwise((in_channels, *widths)), (0.0, 0.0, drop_block, drop_block), strict=True
        )
        self.blocks = nn.Sequential(
            *(Residual(c_in, c_out, rate) for (c_in, c_out), rate in channels)
        )
        self.out_features = widths[-1]
        self.map_shape = (widths[-1], image_size // 16, image_size // 16)

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of images (n, C, H, W)."""
        return self.maps(inputs).mean((2, 3))

    def maps(self, inputs: Inputs) -> Tensor:
        """The last block's maps (n, *map_shape) of images (n, C, H, W)."""
        images = checked_images(inputs, self.in_channels, self.image_size, "ResNet12")
        # which makes a step on a CPU 1.1x as fast, at a quarter of the widths 1.4x (16 images of
        # 84x84)
        maps: Tensor = self.blocks(channels_last(images))
        return maps


class Residual(nn.Module):
    """Three 3x3 convolutions beside one of 1x1, added up, rectified and halved by max-pooling.

    Args:
        c_in: channels of the maps that come.
        c_out: channels of the maps that go.
        drop_block: share of them that DropBlock drops in training.
    """

    def __init__(self, c_in: int, c_out: int, drop_block: float = 0.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for c_from in (c_in, c_out, c_out):
            layers += [
                Conv2d(c_from, c_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.LeakyReLU(SLOPE),
            ]
        self.convolutions = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential(Conv2d(c_in, c_out, 1, bias=False), nn.BatchNorm2d(c_out))
        self.drop = DropBlock(drop_block)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, c_out, H / 2, W / 2) of maps (n, c_in, H, W)."""
        added = self.convolutions(maps) + self.shortcut(maps)
        # Pooling before the rectifier is the same function with the same gradient, on a quarter of
        # the elements.
        dropped: Tensor = self.drop(F.leaky_relu(F.max_pool2d(added, 2), SLOPE))
        return dropped


class DropBlock(nn.Module):
    """Drop whole squares of each map in training, and scale what is left to keep the mean.

    Paper: arXiv:1810.12890.

    Args:
        rate: share of the elements dropped. As in the paper it is met up to where squares overlap.
        size: side of a square, in pixels; maps that are smaller are dropped whole.
    """

    def __init__(self, rate: float, size: int = BLOCK_SIZE) -> None:
        super().__init__()
        self.rate, self.size = rate, size

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, C, H, W) of the same shape."""
        if not self.training or not self.rate:
            return maps
        height, width = maps.shape[2:]
        tall, wide = min(self.size, height), min(self.size, width)
        # the places that a square's corner can have
        rows, columns = height - tall + 1, width - wide + 1
        # equation 1 of the paper
        gamma = self.rate * height * width / (tall * wide * rows * columns)
        # In float32 whatever the maps are: half precision draws too coarsely and cannot count them.
        corners = (
            torch.rand_like(maps[:, :, :rows, :columns], dtype=torch.float32) < gamma
        ).float()
        margins = [wide - 1, wide - 1, tall - 1, tall - 1]
        kept = 1 - F.max_pool2d(F.pad(corners, margins), (tall, wide), stride=1)
        return maps * (kept * (kept.numel() / kept.sum().clamp(min=1))).to(maps.dtype)
