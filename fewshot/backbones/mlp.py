"""The multi-layer perceptron that meta-learning papers use for regression."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone, flattened
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError


class MLP(Backbone):
    """MLP: fully connected layers with ReLU; MAML's network for sinusoids. Paper: arXiv:1703.03400.

    Args:
        in_features: values of one input, all axes taken together.
        hidden: width of each hidden layer.
        norm: `layer` (LayerNorm), `batch` (BatchNorm) or `none`, before each ReLU.
        activation: `relu`, or `tanh` in its place, as policies of control have it.
    """

    def __init__(
        self,
        in_features: Count,
        hidden: Sequence[Count] = (40, 40),
        norm: Literal["layer", "batch", "none"] = "none",
        activation: Literal["relu", "tanh"] = "relu",
    ) -> None:
        super().__init__()
        if not hidden:
            raise FewshotError(
                "hidden is empty; give the MLP at least one layer, such as hidden: [40, 40]"
            )
        self.in_features = in_features
        layers: list[nn.Module] = []
        for c_in, c_out in zip((in_features, *hidden), hidden, strict=False):
            layers.append(nn.Linear(c_in, c_out))
            if norm != "none":
                layers.append(nn.LayerNorm(c_out) if norm == "layer" else nn.BatchNorm1d(c_out))
            layers.append(nn.ReLU() if activation == "relu" else nn.Tanh())
        self.layers = nn.Sequential(*layers)
        self.out_features = hidden[-1]

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of inputs (n, ...), flattened."""
        features: Tensor = self.layers(flattened(inputs, self.in_features, "MLP"))
        return features
