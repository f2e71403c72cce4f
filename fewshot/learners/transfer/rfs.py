"""Rethinking few-shot image classification (RFS; Tian et al., arXiv:2003.11539)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.learners.transfer.base import TransferLearner
from fewshot.learners.transfer.heads import linear_logits, with_ones

# iterations between two looks at whether all episodes are done, for which a device must be waited
CHECK_EVERY = 4
# a step of so many roundings of the largest coordinate is none
ROUNDING = 8


def logistic_regression(
    features: Tensor,
    labels: Tensor,
    way: int,
    inverse_penalty: float,
    tolerance: float,
    max_iterations: int,
) -> Tensor:
    """The weights (..., N, D + 1), bias last, that minimise C sum_i cross-entropy_i + ||W||^2 / 2.

    The bias is not penalised: scikit-learn's `LogisticRegression(C=C)`. The softmax's second
    derivative is at most 1/2 (Böhning 1992), so that a step on the quadratic with this curvature
    never goes too far: a ridge regression of z + 2 (y - softmax(z)), z the logits so far. In the
    coordinates v that make this quadratic a sphere the step has length 1, whatever the features'
    scale, and accelerated gradient descent with restarts (arXiv:1204.3982) finds the one solution
    of the convex problem. Each episode stops for itself, whatever others there are.

    Args:
        features: (..., S, D).
        labels: (..., S) in 0..`way`-1.
        way: N.
        inverse_penalty: C.
        tolerance: largest entry of the gradient, of centred features in the directions of their
            spread, at which an episode is done, or where rounding shows no smaller one.
        max_iterations: how many steps an episode takes at most.
    """
    y = F.one_hot(labels, way).to(features.dtype)
    mean = features.mean(-2, keepdim=True)
    left, spread, right = torch.linalg.svd(features - mean, full_matrices=False)
    curvature = (spread.square() + 2 / inverse_penalty).sqrt()
    share = spread / curvature  # of a direction's responses, what the penalty leaves
    x = with_ones(left * share[..., None, :])  # (..., S, R + 1): logits are x v
    x[..., -1] /= x.shape[-2] ** 0.5
    steep = inverse_penalty / 2 * F.pad(curvature, (0, 1), value=x.shape[-2] ** 0.5)[..., None]
    least, rounding = tolerance / steep, ROUNDING * torch.finfo(x.dtype).eps
    v = ahead = x.new_zeros(*x.shape[:-2], x.shape[-1], way)
    age = x.new_ones(*x.shape[:-2], 1, 1)  # t of the acceleration, which a restart sets back to 1
    for iteration in range(max_iterations):
        logits = x @ ahead
        new = x.mT @ torch.add(logits, y - logits.softmax(-1), alpha=2)
        slope = ahead - new
        told = torch.add(least, ahead.abs().amax(-2, keepdim=True), alpha=rounding)
        going = (slope.abs() > told).flatten(-2).any(-1)[..., None, None]
        if iteration % CHECK_EVERY == 0 and not going.any():
            break
        turned = (slope * (new - v)).sum((-2, -1), keepdim=True) > 0  # the momentum leads uphill
        older = torch.where(turned, 1.0, (1 + (1 + 4 * age.square()).sqrt()) / 2)
        momentum = torch.where(turned, 0.0, (age - 1) / older)
        further = new + momentum * (new - v)
        # Of an episode that is done nothing moves, not even its next look.
        v, ahead, age = (
            torch.where(going, a, b) for a, b in ((new, v), (further, ahead), (older, age))
        )
    weight = (right.mT @ (ahead[..., :-1, :] / curvature[..., None])).mT
    bias = ahead[..., -1, :, None] / x.shape[-2] ** 0.5 - weight @ mean.mT
    return torch.cat([weight, bias], -1)


class RFS(TransferLearner):
    """RFS: cross-entropy pre-training, then logistic regression on normalised features per episode.

    The logistic regression is solved to its one optimum, that of scikit-learn's
    `LogisticRegression`. The paper's augmented copies of the support and its self-distillation are
    left out. Paper: arXiv:2003.11539.

    Args:
        backbone: the network from inputs to features.
        inverse_penalty: C, the weight of the support's summed loss against half the squared norm of
            the weights.
        tolerance: largest entry of the gradient at the optimum (see `logistic_regression`).
        max_iterations: steps of the solver at most.
        normalise: bring the features to unit length first.
        **kwargs: arguments of `TransferLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inverse_penalty: Positive = 1.0,
        tolerance: Positive = 1e-5,
        max_iterations: Count = 1000,
        normalise: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.inverse_penalty, self.tolerance, self.max_iterations = (
            inverse_penalty,
            tolerance,
            max_iterations,
        )
        self.normalise = normalise

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Weights:
        """The classifiers (..., N, D + 1) of support features (..., S, D).

        The last column is the bias.
        """
        settings = self.inverse_penalty, self.tolerance, self.max_iterations
        return {"weight": logistic_regression(self._normal(features), targets, way, *settings)}

    def compare(self, predictor: Weights, features: Tensor) -> Tensor:
        """Logits (..., n, N) of query features (..., n, D)."""
        return linear_logits(predictor, with_ones(self._normal(features)))

    def _normal(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1) if self.normalise else features
