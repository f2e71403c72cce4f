"""Model-agnostic meta-learning (Finn et al., arXiv:1703.03400), second and first order."""

from collections.abc import Iterator
from typing import Any

from torch import nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.optimization.base import OptimizationLearner


class MAML(OptimizationLearner):
    """MAML: trains the initialisation through the inner loop's steps, second derivatives included.

    Classification and regression, any backbone. The inner rate applies to the mean support loss;
    the original code sums over classes, so that its 0.4 on 5-way episodes equals 2.0 here. Paper:
    arXiv:1703.03400.

    Args:
        backbone: the network from inputs to features.
        inner_lr: learning rate of the inner loop, on the mean support loss (the paper: 0.4 on 5-way
            Omniglot, 0.1 on 20-way, 0.01 on mini-ImageNet, each of the sum; 0.01 on sine waves).
        first_order: leave the second derivatives out of the meta-gradient (FOMAML).
        **kwargs: arguments of `OptimizationLearner`.
    """

    acts = True
    takes_noise = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: Positive = 0.01,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if first_order and self.meta_dropout:
            raise FewshotError(
                "meta_dropout is learned through the inner steps, whose derivatives first_order"
                " leaves out; set first_order: false, or leave meta_dropout out"
            )
        self.inner_lr, self.first_order = inner_lr, first_order

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Gradient descent on the mean support loss from the learned initialisation."""
        return self.descend(support, self.initial_weights(), steps, self.inner_lr, self.first_order)


class FOMAML(MAML):
    """FOMAML: MAML that takes the inner gradients as constants; cheaper, often as accurate.

    Paper: arXiv:1703.03400.

    Args:
        backbone: the network from inputs to features.
        **kwargs: arguments of `MAML`, without `first_order`.
    """

    fixed_arguments = ("first_order",)

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, first_order=True, **kwargs)
