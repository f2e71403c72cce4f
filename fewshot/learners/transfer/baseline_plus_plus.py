"""Baseline++ (Chen et al., arXiv:1904.04232)."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.learners.transfer.baseline import Baseline
from fewshot.learners.transfer.heads import cosine_gradient, cosine_logits, descend, unit

MANY_CLASSES, SCALE, SCALE_OF_MANY = 200, 2.0, 10.0


def default_scale(classes: int) -> float:
    """The paper's factor of the cosines: 2, of more than 200 classes 10."""
    return SCALE_OF_MANY if classes > MANY_CLASSES else SCALE


def initial_cosine_head(
    classes: int, features: int, generator: torch.Generator | None = None
) -> Weights:
    """A linear layer's random weights (N, D), split into `direction` and `length` (N, 1)."""
    bound = 1 / math.sqrt(features)
    device = None if generator is None else generator.device  # it draws nowhere else
    direction = torch.empty(classes, features, device=device).uniform_(
        -bound, bound, generator=generator
    )
    return {
        "direction": direction,
        "length": torch.linalg.vector_norm(direction, dim=-1, keepdim=True),
    }


class CosineClassifier(nn.Module):
    """Logits scale * g_c cos(x, v_c) with learned directions v (N, D) and lengths g (N, 1).

    Args:
        features: D.
        classes: N.
        scale: multiplies the cosines; None means `default_scale`.
    """

    def __init__(self, features: int, classes: int, scale: float | None = None) -> None:
        super().__init__()
        self.scale = default_scale(classes) if scale is None else scale
        start = initial_cosine_head(classes, features)
        self.direction, self.length = (
            nn.Parameter(start["direction"]),
            nn.Parameter(start["length"]),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, N) of features (n, D)."""
        return cosine_logits(
            {"direction": self.direction, "length": self.length}, unit(features), self.scale
        )


class BaselinePlusPlus(Baseline):
    """Baseline++: Baseline with cosines to weight-normalised class vectors, in both its stages.

    An episode's class vectors start at the same random numbers always; they belong to the classes'
    labels, so that renaming the classes changes the result a little. Paper: arXiv:1904.04232.

    Args:
        backbone: the network from inputs to features.
        scale: multiplies the cosines; None means 2, and 10 where there are more than 200 classes.
        **kwargs: arguments of `Baseline`.
    """

    def __init__(
        self, backbone: Backbone | nn.Module, scale: Positive | None = None, **kwargs: Any
    ) -> None:
        self._given_scale = scale  # `make_classifier`, which the base calls, reads it
        super().__init__(backbone, **kwargs)

    def make_classifier(self, classes: int) -> nn.Module:
        """Cosines to the training classes' vectors."""
        return CosineClassifier(self.features, classes, self._given_scale)

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Weights:
        """The classifiers `direction` (..., N, D), `length` (..., N, 1) of features (..., S, D)."""
        start = initial_cosine_head(way, features.shape[-1], torch.Generator().manual_seed(0))
        start = {
            name: w.to(features).expand(*features.shape[:-2], *w.shape) for name, w in start.items()
        }
        return descend(
            cosine_gradient(self._scale(way)), start, unit(features), targets, way, self.sgd
        )

    def compare(self, predictor: Weights, features: Tensor) -> Tensor:
        """Logits (..., n, N) of query features (..., n, D)."""
        return cosine_logits(predictor, unit(features), self._scale(predictor["length"].shape[-2]))

    def _scale(self, way: int) -> float:
        return default_scale(way) if self._given_scale is None else self._given_scale
