"""Prototypical Networks (Snell et al., arXiv:1703.05175)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.learners.metric.base import MetricLearner


def class_means(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """The mean feature of each class, (N, D), of features (S, D) with labels (S,) in 0..N-1."""
    member = (labels[:, None] == torch.arange(way, device=labels.device)).to(features.dtype)  # (S, N)
    return (member.T @ features) / member.sum(0)[:, None]


def negative_squared_distance(queries: Tensor, prototypes: Tensor) -> Tensor:
    """-||q - c||^2 for queries (n, D) and prototypes (N, D), shape (n, N)."""
    squares = queries.square().sum(-1)[:, None] + prototypes.square().sum(-1)
    return 2 * queries @ prototypes.T - squares


def cosine_similarity(queries: Tensor, prototypes: Tensor) -> Tensor:
    """cos(q, c) for queries (n, D) and prototypes (N, D), shape (n, N)."""
    return F.normalize(queries, dim=-1) @ F.normalize(prototypes, dim=-1).T


class PrototypicalNetwork(MetricLearner):
    """Prototypical Network: a class is the mean of its support features, a query belongs to the nearest mean.

    Takes episodes of any way; the paper trains with more classes than it tests with (60-way on Omniglot).
    Paper: arXiv:1703.05175.

    Args:
        backbone: the embedding network.
        distance: `euclidean` (squared, as in the paper) or `cosine`.
        scale: the similarity is multiplied by it before the softmax; about 10 suits `cosine`.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        scale: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.similarity = negative_squared_distance if distance == "euclidean" else cosine_similarity
        self.scale = scale

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """The prototypes (N, D) of support features (S, D)."""
        return class_means(features, targets, way)

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Logits (n, N): the similarity of query features (n, D) to the prototypes (N, D)."""
        return self.scale * self.similarity(features, predictor)
