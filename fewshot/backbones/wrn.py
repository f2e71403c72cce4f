"""The wide residual network (Zagoruyko & Komodakis 2016, arXiv:1605.07146)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Share
from fewshot.backbones.base import Backbone, checked_images
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

OUTSIDE = 4  # layers that belong to no block of two: the first, and one shortcut a group
FIRST = 16  # filters of the first convolution


class WRN28_10(Backbone):  # the name that the papers have for it
    """WRN-28-10: three groups of wide pre-activation blocks, then the mean over the map.

    Paper: arXiv:1605.07146.

    The large network of few-shot image classification since LEO (arXiv:1807.05960), there on images
    of 80 or 84 pixels. One such image costs 10 times a `ResNet12`'s.

    Args:
        in_channels: C of the images.
        image_size: H = W of the images, in pixels.
        depth: convolutions on the longest way; 6 n + 4 for n blocks a group.
        width: factor k of the filters: 16 k, 32 k and 64 k, the last is the number of features.
        dropout: rate between the two convolutions of a block in training (the paper: 0, or 0.3 on
            CIFAR).

    Raises:
        FewshotError: an argument out of range.
    """

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 84,
        depth: Count = 28,
        width: Count = 10,
        dropout: Share = 0.0,
    ) -> None:
        super().__init__()
        blocks, rest = divmod(depth - OUTSIDE, 6)
        if rest or blocks < 1:
            raise FewshotError(
                f"depth is {depth}; set it to 6 n + 4 for n blocks a group, such as 10, 16, 22"
                " or 28"
            )
        self.in_channels, self.image_size = in_channels, image_size
        widths = (FIRST, FIRST * width, 2 * FIRST * width, 4 * FIRST * width)
        self.first = nn.Conv2d(in_channels, FIRST, 3, padding=1, bias=False)
        self.blocks = nn.Sequential()
        for group, (c_in, c_out) in enumerate(pairwise(widths)):
            self.blocks.append(WideBlock(c_in, c_out, 1 if group == 0 else 2, dropout))
            self.blocks.extend(WideBlock(c_out, c_out, 1, dropout) for _ in range(blocks - 1))
        self.norm = nn.BatchNorm2d(widths[-1])
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # the authors' initial values
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.out_features = widths[-1]

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of images (n, C, H, W)."""
        images = checked_images(inputs, self.in_channels, self.image_size, "WRN28_10")
        maps: Tensor = self.norm(self.blocks(self.first(images)))
        return maps.relu().mean((2, 3))


class WideBlock(nn.Module):
    """Normalisation, ReLU and 3x3 convolution, twice, plus the input (arXiv:1603.05027).

    The order is pre-activation.

    Where the shape changes, the input's way is a 1x1 convolution of the normalised and rectified
    maps.

    Args:
        c_in: channels of the maps that come.
        c_out: channels of the maps that go.
        stride: of the first convolution; 2 halves the maps.
        dropout: rate between the convolutions in training.
    """

    def __init__(self, c_in: int, c_out: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)
        self.convolution1 = nn.Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=False)
        self.convolution2 = nn.Conv2d(c_out, c_out, 3, padding=1, bias=False)
        same = c_in == c_out and stride == 1
        self.shortcut = None if same else nn.Conv2d(c_in, c_out, 1, stride=stride, bias=False)
        self.dropout = dropout

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (n, c_out, H / stride, W / stride) of maps (n, c_in, H, W)."""
        active = self.norm1(maps).relu()
        inside = self.norm2(self.convolution1(active)).relu()
        if self.dropout and self.training:
            inside = F.dropout(inside, self.dropout)
        added: Tensor = self.convolution2(inside) + (
            maps if self.shortcut is None else self.shortcut(active)
        )
        return added
