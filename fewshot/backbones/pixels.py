"""The inputs themselves as features: the baseline that a learned embedding must beat."""

from torch import Tensor

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone, flattened
from fewshot.episodes.types import Inputs


class Pixels(Backbone):
    """Pixels: the flattened input, nothing learned. Paper: none.

    A 1-shot Prototypical Network on it is the nearest neighbour on pixels; it needs no training
    (``fewshot test``).

    Args:
        in_features: values of one input, all axes taken together.
    """

    def __init__(self, in_features: Count) -> None:
        super().__init__()
        self.out_features = in_features

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, in_features) of inputs (n, ...)."""
        return flattened(inputs, self.out_features, "Pixels")
