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


def is_share(name: str) -> bool:
    """Whether the metric of this name lies in [0, 1] and is told in per cent."""
    return name.startswith(("accuracy", "recall", "f1", "em", "miou", "fb_iou", "iou_"))


def format_estimate(name: str, mean: float, spread: float | None) -> str:
    """The mean of a metric with its interval or deviation (None: unknown), shares in per cent.

    >>> format_estimate("accuracy", 0.5, 0.012)
    '50.00 ± 1.20 %'
    """
    scale, unit = (100.0, " %") if is_share(name) else (1.0, "")
    return f"{scale * mean:.2f} ± {'?' if spread is None else f'{scale * spread:.2f}'}{unit}"
