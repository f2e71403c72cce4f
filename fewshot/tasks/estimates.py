"""A mean over episodes with its confidence interval, and how such a figure is written."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from fewshot.tasks.intervals import LEAST, precision, t95

if TYPE_CHECKING:  # figures of earlier runs are read and written without torch
    from torch import Tensor


class Estimate(NamedTuple):
    """A mean over episodes and the half-width of its 95 % confidence interval, NaN if unknown."""

    mean: float
    ci95: float


def estimate(values: "Tensor", weights: "Tensor | None" = None) -> Estimate:
    """Mean and 95 % confidence interval, t s / sqrt(n) with unbiased s, of episode values (n,).

    The t is Student's of n - 1 degrees of freedom, so that the interval of few episodes, relations
    or seeds holds the truth in 95 % of cases too; of many it is 1.96. Episodes that count by
    positive `weights` (n,), such as their numbers of queries, have the ratio estimator's: the mean
    sum(w v) / sum(w), and an interval of the residuals w (v - mean), whose degrees of freedom are
    fewer the more unequal the weights are (`fewshot.tasks.intervals.precision`). The interval of
    one or two episodes is unknown: NaN.

    >>> import torch
    >>> estimate(torch.tensor([0.5, 1.0, 0.75, 0.75]))
    Estimate(mean=0.75, ci95=0.3248...)
    """
    values = values.double().cpu()
    counts = values.new_ones(len(values)) if weights is None else weights.double().cpu()
    shares = counts / counts.sum()
    mean = (shares * values).sum()
    if len(values) < LEAST:
        return Estimate(mean.item(), math.nan)
    known = precision(shares)
    variance = known.correction * (shares * (values - mean)).square().sum()
    return Estimate(mean.item(), t95(known.degrees.item()) * math.sqrt(variance.item()))


def deviation(values: Sequence[float]) -> float:
    """The sample standard deviation of plain values; NaN, unknown, of fewer than two."""
    if len(values) < 2:
        return math.nan
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def estimate_plain(values: Sequence[float]) -> Estimate:
    """`estimate` of one or more plain values, without torch: of earlier runs' figures.

    >>> estimate_plain([0.5, 1.0, 0.75, 0.75])
    Estimate(mean=0.75, ci95=0.3248...)
    """
    number = len(values)
    mean = math.fsum(values) / number
    if number < LEAST:
        return Estimate(mean, math.nan)
    return Estimate(mean, t95(number - 1) * deviation(values) / math.sqrt(number))


def format_estimate(
    mean: float | None, spread: float | None, unit: str = "", signed: bool = False
) -> str:
    """The mean of a metric with its interval or deviation, in its unit; None and NaN are unknown.

    A share, whose unit is ``%``, is written as so many per cent. A difference is `signed`.

    >>> format_estimate(0.5, 0.012, "%")
    '50.00 ± 1.20 %'
    >>> format_estimate(2.5, None)
    '2.50 ± ?'
    >>> format_estimate(2.5, 0.5, signed=True)
    '+2.50 ± 0.50'
    """
    scale = scale_of(unit)
    signs = ("+" if signed else "", "")
    of_both = (
        "?" if value is None or math.isnan(value) else f"{scale * value:{sign}.2f}"
        for value, sign in zip((mean, spread), signs, strict=True)
    )
    return f"{' ± '.join(of_both)} {unit}".rstrip()


def scale_of(unit: str) -> float:
    """What a figure is multiplied by to be written in its unit."""
    return 100.0 if unit == "%" else 1.0
