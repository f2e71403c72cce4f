"""Meta-SGD (Li et al., arXiv:1707.09835)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from fewshot.arguments import NonNegative
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.optimization.network import check_shapes
from fewshot.learners.optimization.parameters import as_key


class MetaSGD(OptimizationLearner):
    """Meta-SGD: MAML that learns the inner learning rate of every single weight too.

    Paper: arXiv:1707.09835.

    Args:
        backbone: the network from inputs to features.
        initial_rates: the rates start uniformly random between these two.
        **kwargs: arguments of `OptimizationLearner`.
    """

    begins_at = ("initial_rates",)

    knows_weights_by_name = True
    acts = True
    takes_noise = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        initial_rates: tuple[NonNegative, NonNegative] = (0.005, 0.1),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        check_shapes(self.network, type(self).__name__)
        low, high = initial_rates
        if low > high:
            raise FewshotError(f"initial_rates are {low} and {high}; give the smaller first")
        self.rates = nn.ParameterDict(
            {
                as_key(name): torch.empty_like(
                    weight, memory_format=torch.contiguous_format
                ).uniform_(low, high)
                for name, weight in self.initial_weights().items()
            }
        )

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Gradient descent on the mean support loss, each weight at its own rate."""
        rates = {name: self.as_read(name, self.rates[as_key(name)]) for name in self.adapted_names}
        return self.descend(support, self.initial_weights(), steps, lambda step, name: rates[name])
