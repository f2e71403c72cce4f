"""The exact Gaussian process, which neural processes are measured by."""

from typing import Any

import torch
from torch import Tensor

from fewshot.arguments import Count, NonNegative, Positive
from fewshot.backbones.pixels import Pixels
from fewshot.episodes.types import Examples
from fewshot.learners.model_based.process import ProcessLearner
from fewshot.tasks.gaussian_process import posterior


class GaussianProcess(ProcessLearner):
    """GaussianProcess: exact inference with a squared exponential kernel; nothing is trained.

    Paper: none.

    On Gaussian process tasks, whose kernel it is given by the command line, nothing predicts
    better: use `fewshot test` for the log-likelihood that learners approach. Computes in float64.

    Args:
        length_scale: of the kernel, in the unit of x.
        variance: of the function's values.
        noise: standard deviation of the observation noise.
        in_features: coordinates of a point.
        **kwargs: arguments of `MetaLearner`.
    """

    fixed_arguments = ("backbone",)

    def __init__(
        self,
        length_scale: Positive = 0.4,
        variance: Positive = 1.0,
        noise: NonNegative = 0.1,
        in_features: Count = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(Pixels(in_features), **kwargs)
        self.length_scale, self.variance, self.noise = length_scale, variance, noise

    def read(self, support: Examples) -> Examples:
        """The support points themselves."""
        return support

    def answer(self, kept: Examples, queries: Tensor) -> Tensor:
        """Posterior means and standard deviations of noisy observations at the queries."""
        x, y, _ = kept
        assert isinstance(x, Tensor)
        found = posterior(x, y, queries, self.length_scale, self.variance, self.noise)
        return torch.cat(found, -1).to(queries.dtype)
