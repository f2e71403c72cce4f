"""Prototypical Networks (Snell et al., arXiv:1703.05175)."""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.errors import FewshotError
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means, membership


def negative_squared_distance(queries: Tensor, prototypes: Tensor) -> Tensor:
    """-||q - c||^2 for queries (n, D) and prototypes (N, D), shape (n, N)."""
    squares = queries.square().sum(-1)[:, None] + prototypes.square().sum(-1)
    return 2 * queries @ prototypes.T - squares


def cosine_similarity(queries: Tensor, prototypes: Tensor) -> Tensor:
    """cos(q, c) for queries (n, D) and prototypes (N, D), shape (n, N)."""
    return F.normalize(queries, dim=-1) @ F.normalize(prototypes, dim=-1).T


def spread_of_means(features: Tensor, targets: Tensor, way: int) -> Tensor:
    """Expected squared distance of each class's mean from its true mean: v / K_c, (N,).

    v is the variance within classes, summed over the features (S, D) and pooled over the classes of
    the labels (S,). With one example a class there is nothing to estimate it from: 0.
    """
    member = membership(targets, way, features.dtype)
    within = (features - member @ class_means(features, targets, way)).square().sum()
    return within / max(len(targets) - way, 1) / member.sum(0)


class PrototypicalNetwork(MetricLearner):
    """Prototypical Network: a class is its mean support feature, a query belongs to the nearest.

    Takes episodes of any way; the paper trains with more classes than it tests with (60-way on
    Omniglot). Paper: arXiv:1703.05175.

    Args:
        backbone: the embedding network.
        distance: `euclidean` (squared, as in the paper) or `cosine`.
        scale: the similarity is multiplied by it before the softmax; about 10 suits `cosine`.
        learn_scale: train the scale as well, from `scale` on (arXiv:1805.10123).
        unequal_shots: for support sets with more examples of some classes than of others. The mean
            of K_c examples is v / K_c farther from a query than the class's own mean, expected and
            squared, so that classes with few examples are chosen too seldom; this takes v / K_c
            off, v estimated from the support. Where shots are equal nothing changes. For
            `euclidean` alone.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: `unequal_shots` with another distance, or a scale that is not positive.
    """

    aliases: ClassVar[tuple[str, ...]] = ("ProtoNet",)
    proven_in_bfloat16 = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        distance: Literal["euclidean", "cosine"] = "euclidean",
        scale: Positive = 1.0,
        learn_scale: bool = False,
        unequal_shots: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if unequal_shots and distance != "euclidean":
            raise FewshotError(
                f"unequal_shots corrects squared distances, distance is {distance}; use euclidean"
            )
        self.similarity = (
            negative_squared_distance if distance == "euclidean" else cosine_similarity
        )
        self.unequal_shots = unequal_shots
        self.scale = nn.Parameter(torch.tensor(scale)) if learn_scale else scale
        self.begins_at = ("scale",) if learn_scale else ()

    def fit(self, features: Tensor, targets: Tensor, way: int) -> tuple[Tensor, Tensor]:
        """The prototypes (N, D) of features (S, D), and what is taken off distances, (N,).

        The features are the support's, the distances squared.
        """
        prototypes = class_means(features, targets, way)
        spread = (
            spread_of_means(features, targets, way)
            if self.unequal_shots
            else features.new_zeros(way)
        )
        return prototypes, spread

    def compare(self, predictor: tuple[Tensor, Tensor], features: Tensor) -> Tensor:
        """Logits (n, N): the similarity of query features (n, D) to the prototypes (N, D)."""
        prototypes, spread = predictor
        return self.scale * (self.similarity(features, prototypes) + spread)
