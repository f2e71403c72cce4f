"""What learners of random functions share: they predict a normal distribution at each point."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.learners.model_based.base import ModelBasedLearner
from fewshot.tasks import GaussianRegression, Regression


class ProcessLearner(ModelBasedLearner):
    """A learner of regression whose outputs (n, 2 * targets) are means, then standard deviations.

    Reports the log-likelihood a target point, the mean squared error, and the share of targets in
    the 95 % band; the best checkpoint is that of the largest log-likelihood. Takes supports of any
    size.

    Args:
        backbone: what becomes of the inputs first; `Pixels` leaves them as they are.
        **kwargs: arguments of `MetaLearner`.
    """

    takes = Regression
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {"class_path": "fewshot.Pixels"}
    fixed_arguments: Sequence[str] = ("feature_memory", "feature_cache")
    task: GaussianRegression

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        # no features are held: a function is drawn anew for each episode
        super().__init__(backbone, feature_memory=0.0, feature_cache=False, **kwargs)
        self.task = GaussianRegression(self.task.targets)


def perceptron(sizes: Sequence[int]) -> nn.Sequential:
    """Linear layers from ``sizes[0]`` to ``sizes[-1]`` values with ReLU between them."""
    layers: list[nn.Module] = []
    for c_in, c_out in pairwise(sizes):
        layers += [nn.Linear(c_in, c_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def gaussian(outputs: Tensor, min_deviation: float) -> Tensor:
    """Means and positive standard deviations from unbounded outputs (..., 2 * targets).

    sigma = m + (1 - m) softplus(s), with m = `min_deviation`; Garnelo et al. 2018
    (arXiv:1807.01613) have 0.1.
    """
    mean, raw = outputs.chunk(2, -1)
    return torch.cat([mean, min_deviation + (1 - min_deviation) * F.softplus(raw)], -1)
