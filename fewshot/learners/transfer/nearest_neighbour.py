"""The nearest support example."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import FeatureHead, Labelled, squared_distances


class NearestNeighbour(FeatureHead):
    """NearestNeighbour: a query is of the class of the nearest support example. Paper: none.

    On features of unit length, the default, the nearest is that of the largest cosine.

    Args:
        backbone: the network from inputs to features.
        scale: a logit is minus this times the squared distance to the class's nearest example.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self, backbone: Backbone | nn.Module, scale: Positive = 10.0, **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.scale = scale

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        distances = squared_distances(queries, support.features)  # ..., n, S
        of_class = support.labels.argmax(-1)[..., None, :].expand(distances.shape)
        classes = (*distances.shape[:-1], support.labels.shape[-1])
        nearest = distances.new_full(classes, torch.inf)
        return -self.scale * nearest.scatter_reduce(-1, of_class, distances, "amin")
