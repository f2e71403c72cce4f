"""Regression, of values or of normal distributions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Count
from fewshot.tasks.base import EpisodeView, Normal, Task, listed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Regression(Task):
    """Regression: outputs (n, targets) against targets (n, targets); mean squared error.

    Args:
        targets: values to predict for each query.
    """

    kind: ClassVar[str] = "regression"
    such_as: ClassVar[str] = "SinusoidDataModule"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("mse", "min")

    targets: Count = 1

    @property
    def output_size(self) -> int:
        """One output a target value."""
        return self.targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean squared error."""
        return {"mse": F.mse_loss(outputs, targets)}

    def means(self, outputs: Tensor) -> Tensor:
        """The predicted values (n, targets) in outputs, which say more in some tasks."""
        return outputs

    def bands(self, outputs: Tensor) -> Mapping[str, Normal]:
        """The distributions of the targets that outputs tell of, by whose they are."""
        return {}

    def picture(self, view: EpisodeView) -> "Figure | None":
        """A function of one variable: seen points, true and predicted values, their spread."""
        inputs = view.episode.query.inputs
        if not isinstance(inputs, Tensor) or inputs.shape[1:] != (1,) or self.targets != 1:
            return None
        from fewshot.tasks.drawing.functions import draw_function

        predicted = {name: self.means(one) for name, one in view.outputs_by_step().items()}
        spread = {**view.references(), **self.bands(view.outputs())}
        return draw_function(view.episode, predicted, spread)


@dataclass(frozen=True)
class GaussianRegression(Regression):
    """Regression judged as a density: outputs (n, 2 * targets) are means, then standard deviations.

    A benchmark states `Regression`; a learner that predicts how sure it is judges itself by this.
    The loss is the negative log-likelihood a query; beside it stand the mean squared error of the
    means and `coverage95`, the share of target values within 1.96 deviations of the mean, which is
    0.95 for a calibrated learner.
    """

    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("log_likelihood", "max")
    prediction_columns: ClassVar[tuple[str, ...]] = ("target", "predicted", "deviation")

    @property
    def output_size(self) -> int:
        """A mean and a standard deviation a target value."""
        return 2 * self.targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood."""
        return -gaussian_log_likelihood(targets, *outputs.chunk(2, -1)).mean()

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Log-likelihood a query, mean squared error, coverage of the 95 % band."""
        mean, deviation = outputs.chunk(2, -1)
        return {
            "log_likelihood": gaussian_log_likelihood(targets, mean, deviation).mean(),
            "mse": F.mse_loss(mean, targets),
            "coverage95": ((targets - mean).abs() <= 1.96 * deviation).float().mean(),
        }

    def means(self, outputs: Tensor) -> Tensor:
        """The means (n, targets) without their deviations."""
        return outputs.chunk(2, -1)[0]

    def bands(self, outputs: Tensor) -> Mapping[str, Normal]:
        """What the learner predicts."""
        mean, deviation = outputs.chunk(2, -1)
        return {"predicted": (mean, deviation)}

    def predictions(self, outputs: Tensor, targets: Tensor) -> list[Sequence[Any] | Tensor]:
        """The target, the mean and the standard deviation."""
        return [listed(values) for values in (targets, *outputs.chunk(2, -1))]


def gaussian_log_likelihood(targets: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Log N(targets.

    Mean, deviation^2) of values (n, targets), which are independent, summed to (n,).
    """
    standard = (targets - mean) / deviation
    return -(0.5 * standard.square() + deviation.log() + 0.5 * math.log(2 * math.pi)).sum(-1)
