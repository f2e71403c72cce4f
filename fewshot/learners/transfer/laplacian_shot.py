"""LaplacianShot (Ziko et al., arXiv:2006.15486)."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, NonNegative, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.bd_cspn import rectified, shifted
from fewshot.learners.transfer.feature_head import Labelled, TransductiveHead, squared_distances

TOLERANCE = 1e-6
"""Relative change of the bound at which an episode is done."""


def affinities(queries: Tensor, neighbours: int) -> Tensor:
    """W (..., n, n): 1 where a query is among another's nearest, of queries (..., n, D)."""
    distances = squared_distances(queries, queries)
    distances.diagonal(dim1=-2, dim2=-1).fill_(torch.inf)
    nearest = distances.topk(min(neighbours, queries.shape[-2] - 1), largest=False).indices
    return torch.zeros_like(distances).scatter(-1, nearest, 1.0)


def bound_updates(unary: Tensor, affinity: Tensor, weight: float, steps: int) -> Tensor:
    """Logits (..., n, N) whose softmax are the assignments y that lower the bound (Algorithm 1).

    y <- softmax(-a + lambda W y), until the bound sum(y log y + a y - lambda y W y) stands still.
    Each episode stops for itself.

    Args:
        unary: a, squared distances to the classes (..., n, N).
        affinity: W (..., n, n).
        weight: lambda.
        steps: at most.
    """
    logits, last = -unary, unary.new_full((*unary.shape[:-2], 1, 1), torch.inf)
    going = torch.ones_like(last, dtype=torch.bool)
    for step in range(steps):
        updated = -unary + weight * affinity @ logits.softmax(-1)
        logits = torch.where(going, updated, logits)
        y = logits.softmax(-1)
        terms = y * ((y + 1e-12).log() + unary - weight * affinity @ y)
        bound = terms.sum((-2, -1), keepdim=True)
        if step > 1:
            going = going & ((bound - last).abs() > TOLERANCE * last.abs())
            if not going.any():
                break
        last = bound
    return logits


class LaplacianShot(TransductiveHead):
    """LaplacianShot: near queries are drawn to one class, around rectified class means.

    Prototypes are those of `BDCSPN`. Makes no assumption of how many queries a class has. The
    same as easyfsl's with one neighbour fewer than its `knn`, which counts the query itself, with
    `rectify_scale` 1 and `shift_queries` off. Paper: arXiv:2006.15486.

    Args:
        backbone: the network from inputs to features.
        neighbours: of each query, other queries that it is drawn to.
        regularization: lambda, how strongly; the paper chooses it on validation, 0.1 to 1.5.
        steps: updates at most.
        rectify_scale: sharpness of the weights that rectify the class means.
        shift_queries: compare queries that are moved to the support's mean with the classes.
        distance_scale: squared distances are multiplied by it; 1 in the paper.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        neighbours: Count = 3,
        regularization: NonNegative = 0.7,
        steps: Count = 20,
        rectify_scale: Positive = 10.0,
        shift_queries: bool = True,
        distance_scale: Positive = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.neighbours, self.regularization, self.steps = neighbours, regularization, steps
        self.rectify_scale, self.shift_queries = rectify_scale, shift_queries
        self.distance_scale = distance_scale

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        moved = shifted(support, queries)
        prototypes = rectified(support, moved, self.rectify_scale)
        judged = moved if self.shift_queries else queries
        unary = self.distance_scale * squared_distances(judged, prototypes)
        affinity = affinities(judged, self.neighbours)
        return bound_updates(unary, affinity, self.regularization, self.steps)
