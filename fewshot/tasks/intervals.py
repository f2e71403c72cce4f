"""How wide a 95 % interval of a mean of few values is: Student's t, and its degrees of freedom."""

import math
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # figures of earlier runs are read and written without torch
    from torch import Tensor

LEAST = 3
"""Values from which on an interval is stated: two have one of 9 deviations, which says nothing."""
MANY = 1000.0
"""Degrees of freedom from which on Student's t is written as the normal distribution's, corrected.

Three terms of the series are exact to 2e-12 there, where logarithms of gamma functions no longer
are.
"""
TERMS = 40
"""Pairs of terms of the continued fraction, which suffice up to `MANY`."""
MOST_TERMS = 10_000
"""Pairs of terms of that of the incomplete beta function: some sqrt(a + b) are needed."""


@lru_cache
def t95(degrees: float) -> float:
    """The t within which Student's t with so many degrees of freedom (>= 1) lies in 95 % of cases.

    To 1e-10. The degrees need be no whole number.

    >>> round(t95(2), 6), round(t95(9), 6), round(t95(599), 6)
    (4.302653, 2.262157, 1.963932)
    """
    if degrees >= MANY:
        return _expanded(degrees)
    t, step = NormalDist().inv_cdf(0.975), 1.0
    while step > 1e-13 * t:  # Newton's method; the tail is convex, so that it comes from the left
        beyond, density = _tails(t, degrees)
        step = (beyond - 0.05) / density
        t += step
    return t


def _expanded(degrees: float) -> float:
    """The quantile by its series in 1 / degrees (Abramowitz and Stegun, 26.7.5)."""
    z = NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def _tails(t: float, degrees: float) -> tuple[float, float]:
    """The probability that Student's t is further from 0 than `t` >= 1.9, and its density there.

    The first is the incomplete beta function I_x(degrees / 2, 1 / 2) at x = degrees / (degrees +
    t^2), by its continued fraction (Abramowitz and Stegun, 26.5.8), which converges fast for such
    a t. The second is of both tails.
    """
    a, b, x = degrees / 2, 0.5, degrees / (degrees + t * t)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) - math.log(a)
    front = math.exp(log_front + a * math.log(x) + b * math.log1p(-x))
    tail = 1.0
    for m in range(TERMS, 0, -1):  # from the inside out
        odd = -(a + m - 1) * (a + b + m - 1) * x / ((a + 2 * m - 2) * (a + 2 * m - 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        tail = 1 + odd / (1 + even / tail)
    return front / tail, degrees * front / t


class Precision(NamedTuple):
    """What the residuals of weighted means say of the means' variance, one of each a column."""

    correction: "Tensor"
    """What the sum of squared weighted residuals is multiplied by to be the variance."""
    degrees: "Tensor"
    """The degrees of freedom of that variance."""


def precision(shares: "Tensor") -> Precision:
    """How well the variance of weighted means is known, if their values have equal variances.

    The variance of m = sum_i p_i v_i is estimated from the residuals p_i (v_i - m). These are
    A v with A = diag(p) (1 - 1 p'): the expected sum of their squares is tr AA' variances, where
    that of m is sum_i p_i^2 of them, and Satterthwaite's degrees of freedom are (tr AA')^2 /
    tr (AA')^2 (Bell and McCaffrey 2002). Equal shares 1 / n give n / (n - 1) and n - 1; few shares
    that hold most of the weight give few degrees.

    Args:
        shares: p, (n, ...), which add up to 1 along the first axis; those that are 0 do not count.
    """
    second, third, fourth, fifth = ((shares**power).sum(0) for power in (2, 3, 4, 5))
    trace = second - 2 * third + second**2
    of_square = (
        fourth * (1 + 2 * second)
        - 4 * fifth
        + second**4
        + 2 * second * fourth
        - 4 * second**2 * third
        + 2 * third**2
    )
    return Precision(second / trace, (trace**2 / of_square).clamp(min=1))


def incomplete_beta(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction.

    That is the probability of a value up to `x` under the beta distribution (Abramowitz and Stegun,
    26.5.8, from whichever end it converges fast; Lentz's way from the front).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    log_front += a * math.log(x) + b * math.log1p(-x)
    c, d, fraction, m = 1.0, 1 / (1 - (a + b) * x / (a + 1)), 1 / (1 - (a + b) * x / (a + 1)), 0
    change = 0.0
    while abs(change - 1) > 1e-15 and m < MOST_TERMS:
        m += 1
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d, c = 1 / (1 + even * d), 1 + even / c
        fraction *= c * d
        d, c = 1 / (1 + odd * d), 1 + odd / c
        change = c * d
        fraction *= change
    return math.exp(log_front) * fraction / a
