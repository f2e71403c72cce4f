"""Losses and metrics of pairs and triplets of examples: pure functions of distances and labels.

Shapes: M examples, labels (M,); distances and similarities (M, M). A pair is two different
examples.
"""

from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Mining: TypeAlias = Literal["all", "hardest", "semi_hard"]
TINY = 1e-12  # under square roots, whose slope at 0 is infinite


def squared_distances(one: Tensor, two: Tensor) -> Tensor:
    """||a - b||^2 of features (n, D) and (m, D), shape (n, m); never negative."""
    squares = one.square().sum(-1)[:, None] + two.square().sum(-1)
    return (squares - 2 * one @ two.mT).clamp(min=0)


def pairs(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Which pairs are of one class and which of two, each (M, M) bool.

    An example is no pair with itself.
    """
    same = labels[:, None] == labels
    return same & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device), ~same


def balanced_binary_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of the logits (M, M) that two examples are of one class.

    Half its weight on such pairs.
    """
    same, different = pairs(labels)
    return (_mean(F.softplus(-logits), same) + _mean(F.softplus(logits), different)) / 2


def contrastive_loss(squared: Tensor, labels: Tensor, margin: float) -> Tensor:
    """1/2 d^2 of equal pairs, 1/2 max(0, margin - d)^2 of others, of squared distances (M, M).

    Each is averaged.
    """
    same, different = pairs(labels)
    distances = (squared + TINY).sqrt()
    return (_mean(squared, same) + _mean((margin - distances).clamp(min=0).square(), different)) / 2


def triplet_loss(squared: Tensor, labels: Tensor, margin: float, mining: Mining) -> Tensor:
    """The mean of max(0, d^2(a, p) - d^2(a, n) + margin) over triplets picked by `mining`.

    Args:
        squared: squared distances (M, M).
        labels: (M,); every class has at least two examples, and there are at least two classes.
        margin: by how much a negative shall be farther than a positive.
        mining: as in `SiameseNetwork`.
    """
    same, different = pairs(labels)
    if mining == "hardest":
        positive = squared.masked_fill(~same, -torch.inf).amax(1)
        negative = squared.masked_fill(~different, torch.inf).amin(1)
        return (positive - negative + margin).clamp(min=0).mean()
    anchors, positives = same.nonzero(as_tuple=True)  # P pairs
    # (P, M)
    positive, negatives, allowed = squared[anchors, positives], squared[anchors], different[anchors]
    if mining == "all":
        return _mean((positive[:, None] - negatives + margin).clamp(min=0), allowed)
    farther = allowed & (negatives > positive[:, None])
    nearest = negatives.masked_fill(~farther, torch.inf).amin(1)
    farthest = negatives.masked_fill(~allowed, -torch.inf).amax(1)
    return (positive - torch.where(farther.any(1), nearest, farthest) + margin).clamp(min=0).mean()


def verification(scores: Tensor, same: Tensor) -> tuple[Tensor, Tensor]:
    """ROC area and equal error rate of the scores (P,) that pairs are of one class.

    Args:
        scores: higher means more alike, any range.
        same: whether each pair is of one class, bool (P,); some are and some are not.

    Returns:
        The area, and the rate at which false acceptances and false rejections are equally frequent
        (linear between the points of the curve).
    """
    # here: it takes seconds
    from torchmetrics.functional.classification import binary_auroc, binary_roc

    # torchmetrics reads anything outside [0, 1] as logits; ranks keep the order and stay inside
    ranks = torch.unique(scores.detach(), return_inverse=True)[1].double()
    ranks = ranks / ranks.max().clamp(min=1)
    false_positive, true_positive, _ = binary_roc(ranks, same.long())
    gap = (1 - true_positive) - false_positive  # falls from 1 to -1 along the curve
    after = int((gap <= 0).nonzero()[0])
    step = gap[after - 1] / (gap[after - 1] - gap[after])
    eer = false_positive[after - 1] + step * (false_positive[after] - false_positive[after - 1])
    return binary_auroc(ranks, same.long()).float(), eer.float()


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values.masked_fill(~mask, 0).sum() / mask.sum()
