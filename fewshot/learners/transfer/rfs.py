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
CHECK_EVERY = 10


def logistic_regression(
    features: Tensor,
    labels: Tensor,
    way: int,
    inverse_penalty: float,
    tolerance: float,
    max_iterations: int,
) -> Tensor:
    """The weights (..., N, D + 1), bias last, that minimise C sum_i cross-entropy_i + ||W||^2 / 2.

    The bias is not penalised: scikit-learn's `LogisticRegression(C=C)`. The problem is convex and
    smooth, so that accelerated gradient descent with restarts (arXiv:1204.3982) at the step 1 / L
    finds its one solution. Each episode stops for itself, whatever others there are.

    Args:
        features: (..., S, D).
        labels: (..., S) in 0..`way`-1.
        way: N.
        inverse_penalty: C.
        tolerance: largest entry of the gradient at which an episode is done.
        max_iterations: how many steps an episode takes at most.
    """
    x, y = with_ones(features), F.one_hot(labels, way).to(features.dtype)
    penalised = torch.ones_like(x[..., :1, :])
    penalised[..., -1] = 0

    def gradient(w: Tensor) -> Tensor:
        return inverse_penalty * ((x @ w.mT).softmax(-1) - y).mT @ x + penalised * w

    # The softmax's second derivative is at most 1/2.
    lipschitz = 1 + inverse_penalty / 2 * torch.linalg.matrix_norm(x.float(), 2).square().to(
        x.dtype
    )
    step = (1 / lipschitz)[..., None, None]
    w = ahead = x.new_zeros(*x.shape[:-2], way, x.shape[-1])
    age = torch.ones_like(step)  # t of the acceleration, which a restart sets back to 1
    for iteration in range(max_iterations):
        slope = gradient(ahead)
        going = slope.abs().amax((-2, -1), keepdim=True) > tolerance
        if iteration % CHECK_EVERY == 0 and not going.any():
            break
        new = ahead - step * slope
        turned = (slope * (new - w)).sum((-2, -1), keepdim=True) > 0  # the momentum leads uphill
        older = torch.where(turned, 1.0, (1 + (1 + 4 * age.square()).sqrt()) / 2)
        momentum = torch.where(turned, 0.0, (age - 1) / older)
        further = new + momentum * (new - w)
        # Of an episode that is done nothing moves, not even its next look.
        w, ahead, age = (
            torch.where(going, a, b) for a, b in ((new, w), (further, ahead), (older, age))
        )
    return ahead


class RFS(TransferLearner):
    """RFS: cross-entropy pre-training, then logistic regression on normalised features per episode.

    The logistic regression is solved to its one optimum, that of scikit-learn's
    `LogisticRegression`. The paper's augmented copies of the support and its self-distillation are
    left out. Paper: arXiv:2003.11539.

    Args:
        backbone: the network from inputs to features.
        inverse_penalty: C, the weight of the support's summed loss against half the squared norm of
            the weights.
        tolerance: largest entry of the gradient at the optimum.
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
