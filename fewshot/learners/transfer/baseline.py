"""Baseline (Chen et al., arXiv:1904.04232)."""

from typing import Annotated, Any

from torch import Tensor, nn

from fewshot.arguments import Count, NonNegative, Range
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.learners.transfer.base import TransferLearner
from fewshot.learners.transfer.heads import (
    SGD,
    descend,
    linear_gradient,
    linear_logits,
    with_ones,
)


class Baseline(TransferLearner):
    """Baseline: cross-entropy pre-training, then a linear classifier of frozen features an episode.

    The classifier is trained by SGD with momentum on mini-batches of the support. It starts at
    zero, where the paper's code starts at random: so the classes' names do not matter. Paper:
    arXiv:1904.04232.

    Args:
        backbone: the network from inputs to features.
        head_lr: learning rate of an episode's classifier (the paper: 0.01).
        head_momentum: momentum of its SGD (the paper: 0.9).
        head_dampening: dampening of its momentum (the paper: 0.9).
        head_weight_decay: weight decay of its SGD (the paper: 0.001).
        head_epochs: passes over the support (the paper: 100).
        head_batch: support examples of a mini-batch (the paper: 4).
        **kwargs: arguments of `TransferLearner`.
    """

    proven_in_bfloat16 = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        head_lr: NonNegative = 0.01,
        head_momentum: Annotated[float, Range(0, 1)] = 0.9,
        head_dampening: Annotated[float, Range(0, 1)] = 0.9,
        head_weight_decay: NonNegative = 1e-3,
        head_epochs: Count = 100,
        head_batch: Count = 4,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.sgd = SGD(
            head_lr, head_momentum, head_dampening, head_weight_decay, head_epochs, head_batch
        )

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Weights:
        """The classifiers (..., N, D + 1) of support features (..., S, D).

        The last column is the bias.
        """
        x = with_ones(features)
        start = {"weight": x.new_zeros(*x.shape[:-2], way, x.shape[-1])}
        return descend(linear_gradient, start, x, targets, way, self.sgd)

    def compare(self, predictor: Weights, features: Tensor) -> Tensor:
        """Logits (..., n, N) of query features (..., n, D)."""
        return linear_logits(predictor, with_ones(features))
