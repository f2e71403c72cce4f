"""The ranking task kind against written-out references: ties, candidates that do not count, means over queries."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fewshot.metrics import estimate
from fewshot.tasks import Ranking, mean_ranks

SCORE = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])


def written_out(scores: list[float], target: int) -> float:
    """The mean of the best and the worst place that sorting could give the target among those that count."""
    others = [score for i, score in enumerate(scores) if i != target and score != -math.inf]
    best = 1 + sum(score > scores[target] for score in others)
    worst = 1 + sum(score >= scores[target] for score in others)
    return (best + worst) / 2


@given(st.lists(SCORE, min_size=1, max_size=12), st.data())
def test_ranks_are_the_written_out_ones(scores: list[float], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    found = mean_ranks(torch.tensor([scores], dtype=torch.float64), torch.tensor([target]))
    assert found.item() == written_out(scores, target)


def test_a_nan_gains_nothing() -> None:
    scores = torch.tensor([[math.nan, 1.0, 2.0], [0.0, math.nan, -1.0]])
    assert mean_ranks(scores, torch.tensor([0, 0])).tolist() == [3.0, 2.0]


def test_metrics_of_known_ranks() -> None:
    scores = torch.arange(12.0).flip(0).repeat(3, 1)  # column i has rank i + 1
    metrics = Ranking().metrics(scores, torch.tensor([0, 4, 10]))
    expected = {"mrr": (1 + 1 / 5 + 1 / 11) / 3, "hits1": 1 / 3, "hits5": 2 / 3, "hits10": 2 / 3}
    assert {name: value.item() for name, value in metrics.items()} == pytest.approx(expected)


def test_loss_and_its_gradient_leave_out_what_does_not_count() -> None:
    scores = torch.tensor([[1.0, 0.5, -math.inf, 3.0]], dtype=torch.float64, requires_grad=True)
    loss = Ranking(margin=1.0).loss(scores, torch.tensor([0]))
    assert loss.item() == pytest.approx((0.5 + 3.0) / 2)
    loss.backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[-1.0, 0.5, 0.0, 0.5]]


def test_a_mean_weighted_by_queries_is_the_mean_over_queries() -> None:
    torch.manual_seed(0)
    ranks = [torch.randint(1, 20, (n,)).double() for n in (3, 50, 7)]
    episodes = torch.stack([rank.reciprocal().mean() for rank in ranks])
    weights = torch.tensor([len(rank) for rank in ranks])
    assert estimate(episodes, weights).mean == pytest.approx(torch.cat(ranks).reciprocal().mean().item(), abs=1e-12)


def test_equal_weights_are_no_weights() -> None:
    values = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64)
    weighted = estimate(values, torch.full((3,), 17))
    assert weighted == pytest.approx(estimate(values))
