"""A mean over episodes with its confidence interval, and how such a figure is written."""

import math
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # figures of earlier runs are read and written without torch
    from torch import Tensor


class Estimate(NamedTuple):
    """A mean over episodes and the half-width of its 95 % confidence interval."""

    mean: float
    ci95: float


def estimate(values: "Tensor", weights: "Tensor | None" = None) -> Estimate:
    """Mean and 95 % confidence interval, 1.96 s / sqrt(n) with unbiased s, of episode values (n,).

    Episodes that count by positive `weights` (n,), such as their numbers of queries, have the ratio
    estimator's: the mean sum(w v) / sum(w), and the s of w (v - mean) / mean(w). The interval of a
    single episode is unknown: NaN.

    >>> import torch
    >>> estimate(torch.tensor([0.5, 1.0, 0.75, 0.75]))
    Estimate(mean=0.75, ci95=0.2000...)
    """
    values = values.double().cpu()
    if len(values) < 2:
        return Estimate(values.mean().item(), math.nan)
    if weights is None:
        return Estimate(values.mean().item(), 1.96 * values.std().item() / math.sqrt(len(values)))
    share = weights.double().cpu() / weights.double().mean().cpu()
    mean = (share * values).mean()
    # the weighted residuals sum to 0, so that their standard deviation is the ratio estimator's
    return Estimate(
        mean.item(), 1.96 * (share * (values - mean)).std().item() / math.sqrt(len(values))
    )


def format_estimate(mean: float, spread: float | None, unit: str = "") -> str:
    """The mean of a metric with its interval or deviation (None: unknown), in its unit.

    A share, whose unit is ``%``, is written as so many per cent.

    >>> format_estimate(0.5, 0.012, "%")
    '50.00 ± 1.20 %'
    >>> format_estimate(2.5, None)
    '2.50 ± ?'
    """
    scale = scale_of(unit)
    known = "?" if spread is None else f"{scale * spread:.2f}"
    return f"{scale * mean:.2f} ± {known} {unit}".rstrip()


def scale_of(unit: str) -> float:
    """What a figure is multiplied by to be written in its unit."""
    return 100.0 if unit == "%" else 1.0
