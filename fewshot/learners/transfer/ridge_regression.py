"""Ridge regression of one-hot labels on features, in closed form."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import NonNegative, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.metric.r2d2 import ridge_regression
from fewshot.learners.transfer.feature_head import FeatureHead, Labelled


class RidgeRegression(FeatureHead):
    """RidgeRegression: one-hot labels regressed on each support's features. Paper: none.

    The weights W and the intercept b minimise ||X W + b - Y||^2 + penalty ||W||^2: scikit-learn's
    `Ridge`. `R2D2` (arXiv:1805.08136) is trained through it; this is the head alone.

    Args:
        backbone: the network from inputs to features.
        penalty: of the squared weights; the intercept has none.
        scale: the outputs, about in [0, 1], are multiplied by it to be logits.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        penalty: Positive = 1.0,
        scale: NonNegative = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.penalty, self.scale = penalty, scale

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        middle, share = (part.mean(-2, keepdim=True) for part in support)
        x, y = support.features - middle, support.labels - share
        weights = ridge_regression(x, y, self.penalty)
        outputs: Tensor = (queries - middle) @ weights + share
        return torch.mul(outputs, self.scale)
