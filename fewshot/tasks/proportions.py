"""Exact intervals of a share of right answers, and of a share still to come. No torch is needed."""

import math
from functools import lru_cache

from fewshot.tasks.intervals import incomplete_beta

TAIL = 0.025
"""What an interval of 95 % leaves out at each end."""
STEPS = 60
"""Halvings of [0, 1], to the last bit of a float."""


@lru_cache
def share_interval(right: int, number: int) -> tuple[float, float]:
    """The 95 % interval of a share, from `right` of `number` (Clopper and Pearson 1934).

    It holds the share in 95 % of cases or more, whatever the share is.

    >>> [round(end, 4) for end in share_interval(9, 10)]
    [0.555, 0.9975]
    """
    low = 0.0 if right == 0 else _quantile(TAIL, right, number - right + 1)
    high = 1.0 if right == number else _quantile(1 - TAIL, right + 1, number - right)
    return low, high


@lru_cache
def future_interval(right: int, number: int, more: int) -> tuple[float, float]:
    """The 95 % interval of the share of right answers among `more` others of the same kind.

    From `right` of `number` that were seen. Both samples vary: of few others the interval is wider,
    of many it is `share_interval`. The ends are those of Thatcher (1964): quantiles of the
    beta-binomial distributions behind `share_interval`.

    >>> future_interval(9, 10, 5)
    (0.4, 1.0)
    """
    low = 0 if right == 0 else _binomial_quantile(TAIL, more, right, number - right + 1)
    high = more
    if right < number:
        high = _binomial_quantile(1 - TAIL, more, right + 1, number - right)
    return low / more, high / more


def _quantile(share: float, a: float, b: float) -> float:
    """Where the beta distribution with parameters `a`, `b` has so much to its left."""
    low, high = 0.0, 1.0
    for _ in range(STEPS):
        middle = (low + high) / 2
        if incomplete_beta(middle, a, b) < share:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _binomial_quantile(share: float, number: int, a: float, b: float) -> int:
    """The least count of `number` with so much of the beta-binomial distribution up to it."""
    log = (
        math.lgamma(number + b) - math.lgamma(b) + math.lgamma(a + b) - math.lgamma(number + a + b)
    )
    total = 0.0
    for count in range(number):
        total += math.exp(log)
        if total >= share:
            return count
        log += math.log((number - count) * (count + a) / ((count + 1) * (number - count - 1 + b)))
    return number
