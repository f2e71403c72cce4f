"""Exact intervals of shares, against scipy's distributions and by what they promise."""

import pytest

from fewshot.tasks.intervals import incomplete_beta
from fewshot.tasks.proportions import future_interval, share_interval

stats = pytest.importorskip("scipy.stats", reason="needs the extra fewshot-lightning[dev]")


@pytest.mark.parametrize(("a", "b"), [(1, 1), (0.5, 3), (7, 2), (60, 1), (3000, 41), (2e5, 3e5)])
def test_the_incomplete_beta_function_is_scipys(a: float, b: float) -> None:
    for x in (0.0, 1e-6, 0.1, a / (a + b), 0.5, 0.97, 1.0):
        assert incomplete_beta(x, a, b) == pytest.approx(stats.beta.cdf(x, a, b), abs=1e-9)


@pytest.mark.parametrize(
    ("right", "number"), [(0, 1), (0, 7), (3, 5), (25, 25), (59, 60), (310, 4000)]
)
def test_an_interval_of_a_share_is_scipys(right: int, number: int) -> None:
    exact = stats.binomtest(right, number).proportion_ci(0.95, "exact")
    assert share_interval(right, number) == pytest.approx(tuple(exact), abs=1e-9)


@pytest.mark.parametrize(
    ("right", "number", "more"),
    [(0, 6, 9), (9, 10, 5), (52, 60, 60), (25, 25, 75), (18, 100, 3000)],
)
def test_an_interval_of_others_is_made_of_scipys_beta_binomial_quantiles(
    right: int, number: int, more: int
) -> None:
    low = stats.betabinom.ppf(0.025, more, right, number - right + 1) if right else 0
    high = stats.betabinom.ppf(0.975, more, right + 1, number - right) if right < number else more
    assert future_interval(right, number, more) == (low / more, high / more)


def test_an_interval_of_many_others_is_that_of_the_share() -> None:
    assert future_interval(52, 60, 100_000) == pytest.approx(share_interval(52, 60), abs=1e-4)


@pytest.mark.parametrize("share", [0.3, 0.87, 0.99])
@pytest.mark.parametrize(("number", "more"), [(25, 75), (60, 60), (100, 10)])
def test_both_intervals_hold_what_they_say_in_95_per_cent_of_cases_or_more(
    share: float, number: int, more: int
) -> None:
    seen = [stats.binom.pmf(k, number, share) for k in range(number + 1)]
    later = [stats.binom.pmf(k, more, share) for k in range(more + 1)]
    of_share = of_others = 0.0
    for right, chance in enumerate(seen):
        low, high = share_interval(right, number)
        of_share += chance * (low <= share <= high)
        low, high = future_interval(right, number, more)
        of_others += chance * sum(p for k, p in enumerate(later) if low <= k / more <= high)
    assert of_share >= 0.95
    assert of_others >= 0.95
