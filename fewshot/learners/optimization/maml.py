"""Model-agnostic meta-learning (Finn et al., arXiv:1703.03400)."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from fewshot.backbones.base import Backbone
from fewshot.episodes import Examples
from fewshot.inner_loop import Weights, gradient_steps
from fewshot.learners.optimization.base import OptimizationLearner


class MAML(OptimizationLearner):
    """MAML: the initialisation is trained through the inner loop's gradient steps, second derivatives included.

    Classification and regression, any backbone. The inner rate applies to the mean support loss; the original code
    sums over classes, so that its 0.4 on 5-way episodes equals 2.0 here. Paper: arXiv:1703.03400.

    Args:
        backbone: the network from inputs to features; a linear head follows it.
        first_order: leave the second derivatives out of the meta-gradient (FOMAML).
        **kwargs: arguments of `OptimizationLearner`.
    """

    def __init__(self, backbone: Backbone | nn.Module, first_order: bool = False, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        self.first_order = first_order

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Gradient descent on the mean support loss from the learned initialisation."""
        weights: Weights = dict(self.network.named_parameters())
        return gradient_steps(
            lambda fast_weights: self.support_loss(fast_weights, support),
            weights,
            self.inner_lr,
            steps,
            self.first_order,
        )
