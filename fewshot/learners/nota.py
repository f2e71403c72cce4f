"""None of the above: the logit that a query is of no class of its episode (arXiv:1910.07124).

Shapes: n queries, N classes; "..." is the axis B of a meta-batch, or nothing.
"""

import math
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

Rule: TypeAlias = Literal["minimum", "learned", "probability", "similarity"]
Criterion: TypeAlias = Literal["accuracy", "balanced"]


class NoneOfTheAbove(nn.Module):
    """Adds to the logits (..., n, N) of the classes one for none of them, by a rule.

    Args:
        rule: `minimum`: one less than the smallest, which is FewRel 2.0's for prototypes and never
            the largest. `learned`: a x mean + b of the classes' logits, a and b trained on queries
            of other classes, from 1 and 0 on. `probability`: the largest where the largest
            probability of a class is below a threshold. `similarity`: the same with the largest
            logit in its place. Thresholds are chosen on the validation episodes when testing
            begins; until then no query is of none.
        active: whether the task has such queries; without, the logits stay as they are.
    """

    def __init__(self, rule: Rule, active: bool = True) -> None:
        super().__init__()
        self.rule, self.active = rule, active
        if rule == "learned":
            self.slope, self.offset = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))
        # not yet known; no part of checkpoints, which are written before it is
        self.threshold = math.nan

    def forward(self, logits: Tensor) -> Tensor:
        """Logits (..., n, N + 1) of logits (..., n, N)."""
        if not self.active:
            return logits
        if self.rule == "minimum":
            none = logits.amin(-1) - 1
        elif self.rule == "learned":
            none = self.slope * logits.mean(-1) + self.offset
        else:
            largest = logits.logsumexp(-1)
            if math.isnan(self.threshold):
                # the logarithm of a mean is below the largest
                none = largest - math.log(logits.shape[-1])
            elif self.rule == "probability":
                # max p < t says: the largest logit is below this
                none = largest + math.log(self.threshold)
            else:
                none = torch.full_like(largest, self.threshold)
        return torch.cat([logits, none.unsqueeze(-1).to(logits.dtype)], -1)

    def confidence(self, logits: Tensor) -> Tensor:
        """What a threshold is compared with, (..., n), of the classes' logits (..., n, N)."""
        return logits.softmax(-1).amax(-1) if self.rule == "probability" else logits.amax(-1)

    @property
    def lacks_threshold(self) -> bool:
        """Whether the rule has a threshold that has not been chosen yet."""
        return (
            self.active
            and self.rule in ("probability", "similarity")
            and math.isnan(self.threshold)
        )

    def facts(self) -> dict[str, Any]:
        """The rule and its threshold as plain values."""
        if not self.active:
            return {}
        return {
            "nota": self.rule,
            "threshold": None if math.isnan(self.threshold) else self.threshold,
        }


def best_threshold(confidences: Tensor, right: Tensor, none: Tensor, criterion: Criterion) -> float:
    """The best threshold for queries answered by their best class, or by none below it.

    Args:
        confidences: of the best class, (n,).
        right: whether the best class is the label's, bool (n,).
        none: whether the query is of no class, bool (n,).
        criterion: `accuracy` over all queries, or `balanced`: the mean of the accuracy over queries
            of the classes and the share of the others that is found.

    Returns:
        The middle between two neighbouring confidences; of equally good ones the smallest.
    """
    ordered, order = confidences.double().sort()
    known, unknown = (right & ~none)[order].double(), none[order].double()
    if criterion == "balanced":
        known, unknown = known / (~none).sum().clamp(min=1), unknown / none.sum().clamp(min=1)
    zero = known.new_zeros(1)
    # with the first k below the threshold: those of no class among them, and the right ones behind
    # them
    scores = torch.cat([zero, unknown.cumsum(0)]) + known.sum() - torch.cat([zero, known.cumsum(0)])
    edges = torch.cat([ordered[:1] - 1e-6, (ordered[:-1] + ordered[1:]) / 2, ordered[-1:] + 1e-6])
    # equal confidences stay together
    distinct = torch.cat([zero == 0, ordered[:-1] < ordered[1:], zero == 0])
    return float(edges[scores.masked_fill(~distinct, -1).argmax()])
