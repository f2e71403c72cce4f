"""The inputs themselves as features: the baseline that a learned embedding must beat."""

from torch import Tensor

from fewshot.backbones.base import Backbone
from fewshot.episodes import Inputs
from fewshot.errors import FewshotError


class Pixels(Backbone):
    """Pixels: the flattened input, nothing learned. Paper: none.

    A 1-shot Prototypical Network on it is the nearest neighbour on pixels; it needs no training (``fewshot test``).

    Args:
        in_features: values of one input, all axes taken together.
    """

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.out_features = in_features

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, in_features) of inputs (n, ...)."""
        if not isinstance(inputs, Tensor) or inputs[0].numel() != self.out_features:
            size = inputs[0].numel() if isinstance(inputs, Tensor) else "a dict"
            raise FewshotError(
                f"Pixels was built for in_features {self.out_features}, the benchmark gives {size};"
                " set in_features of the backbone to the benchmark's"
            )
        return inputs.flatten(1)
