"""The four-block convolutional network of few-shot learning (Vinyals et al., arXiv:1606.04080)."""

from itertools import pairwise
from typing import Annotated, Literal

from torch import Tensor, nn

from fewshot.arguments import Count, Range
from fewshot.backbones.base import Backbone, checked_images
from fewshot.backbones.channels_last import Conv2d, channels_last
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

GROUPS = 8  # of norm="group"


class Conv4(Backbone):
    """Conv4: four blocks of 3x3 convolution, normalisation, ReLU and downsampling by 2.

    Paper: arXiv:1606.04080.

    Args:
        in_channels: C of the images.
        image_size: H = W of the images, in pixels.
        width: filters of each block (64; MAML on mini-ImageNet: 32).
        downsample: `pool` (2x2 max-pooling) or `stride` (strided convolution, MAML on Omniglot).
        output: `flatten` (width * (size / 16)^2 features where all blocks downsample) or `mean`
            over the last map (width features).
        norm: `batch` (what statistics it uses is the learner's `batchnorm` policy), `group`
            (GroupNorm: never looks at other examples) or `none`.
        pooled_blocks: how many blocks downsample, from the first on; 2 keeps maps for a Relation
            Network to read.
    """

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 28,
        width: Count = 64,
        downsample: Literal["pool", "stride"] = "pool",
        output: Literal["flatten", "mean"] = "flatten",
        norm: Literal["batch", "group", "none"] = "batch",
        pooled_blocks: Annotated[int, Range(0, 4, why=": Conv4 has 4 blocks")] = 4,
    ) -> None:
        super().__init__()
        self.in_channels, self.image_size, self.output = in_channels, image_size, output
        size = image_size
        for _ in range(pooled_blocks):
            size = size // 2 if downsample == "pool" else (size + 1) // 2
        if size < 1:
            raise FewshotError(
                f"Conv4 halves its input {pooled_blocks} times: image_size {image_size} leaves"
                f" nothing; use {2**pooled_blocks} px or more"
            )
        if norm == "group" and width % GROUPS:
            raise FewshotError(f"width is {width}; for norm group set it to a multiple of {GROUPS}")
        channels = [in_channels, width, width, width, width]
        self.blocks = nn.Sequential(
            *(
                _block(c_in, c_out, downsample if number < pooled_blocks else "none", norm)
                for number, (c_in, c_out) in enumerate(pairwise(channels))
            )
        )
        # before the third ReLU, as in arXiv:1810.03642
        self.film_after = f"blocks.2.{len(list(self.blocks[2].children())) - 2}"
        self.map_shape = (width, size, size)
        self.out_features = width if output == "mean" else width * size * size

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of images (n, C, H, W)."""
        maps = self.maps(inputs)
        return maps.mean((2, 3)) if self.output == "mean" else maps.flatten(1)

    def maps(self, inputs: Inputs) -> Tensor:
        """The last block's maps (n, *map_shape) of images (n, C, H, W)."""
        images = checked_images(inputs, self.in_channels, self.image_size, "Conv4")
        # which makes a training step on a CPU 1.5x as fast (measured on 360 images of 28x28)
        maps: Tensor = self.blocks(channels_last(images))
        return maps


def _block(c_in: int, c_out: int, downsample: str, norm: str) -> nn.Sequential:
    stride = 2 if downsample == "stride" else 1
    layers: list[nn.Module] = [
        Conv2d(c_in, c_out, 3, stride=stride, padding=1, bias=norm == "none")
    ]
    if norm == "batch":
        layers.append(nn.BatchNorm2d(c_out))
    elif norm == "group":
        layers.append(nn.GroupNorm(GROUPS, c_out))
    # Pooling before the ReLU is the same function with the same gradient, on a quarter of the
    # elements.
    layers += [nn.MaxPool2d(2)] if downsample == "pool" else []
    return nn.Sequential(*layers, nn.ReLU())
