"""Networks from inputs to features, one file each. To add one: write the file, import its class here."""

from fewshot.backbones.base import Backbone
from fewshot.backbones.conv4 import Conv4
from fewshot.backbones.mlp import MLP

__all__ = ["MLP", "Backbone", "Conv4"]
