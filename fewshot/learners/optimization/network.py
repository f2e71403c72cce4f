"""The network that an inner loop adapts: backbone and head as one module."""

from torch import Tensor, nn

from fewshot.backbones.base import features_of, maps_of, needed_map_shape
from fewshot.episodes.types import Inputs


class Network(nn.Module):
    """Backbone and head as one module, so that all parameters are swapped in one call.

    Args:
        backbone: inputs to features.
        head: features to outputs.
        dense: take the backbone's feature maps (n, C, h, w) for the features, so that the outputs
            are maps too.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, dense: bool = False) -> None:
        super().__init__()
        self.backbone, self.head, self.dense = backbone, head, dense

    def features(self, inputs: Inputs) -> Tensor:
        """What the head reads of inputs (n, ...)."""
        read = maps_of if self.dense else features_of
        return read(self.backbone, inputs)

    def forward(self, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size, ...) of inputs (n, ...)."""
        outputs = self.head(self.features(inputs))
        assert isinstance(outputs, Tensor)
        return outputs


def linear_head(backbone: nn.Module, output_size: int, dense: bool) -> nn.Module:
    """A linear layer from features (n, D) to outputs, or a 1x1 convolution of feature maps."""
    if dense:
        return nn.Conv2d(needed_map_shape(backbone, "a 1x1 convolution")[0], output_size, 1)
    features = backbone.out_features
    assert isinstance(features, int)  # `MetaLearner` has checked it
    return nn.Linear(features, output_size)
