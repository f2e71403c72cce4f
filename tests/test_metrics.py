import math

import numpy as np
import pytest
import torch

from fewshot.learners.table import EpisodeTable
from fewshot.tasks.estimates import estimate
from fewshot.tasks.intervals import precision, t95


def test_the_estimate_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).random(601).astype(np.float32)
    mean, ci95 = estimate(torch.from_numpy(values))
    exact = values.astype(np.float64)
    assert mean == pytest.approx(exact.mean(), rel=1e-14)
    student = 1.963926  # its t of 600 degrees of freedom
    assert ci95 == pytest.approx(student * exact.std(ddof=1) / math.sqrt(601), rel=1e-6)


@pytest.mark.parametrize("values", [[0.25], [0.0, 0.5]])
def test_the_interval_of_one_or_two_episodes_is_unknown(values: list[float]) -> None:
    for weights in (None, torch.ones(len(values))):
        mean, ci95 = estimate(torch.tensor(values), weights)
        assert mean == 0.25
        assert math.isnan(ci95)


def test_the_quantiles_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    drawn = np.random.default_rng(0).uniform(1, 1200, 200)
    degrees = [*range(1, 200), *drawn, 999.99, 1000, 1e4, 1e6, 1e9]
    found = [t95(of) for of in degrees]
    np.testing.assert_allclose(found, stats.t.ppf(0.975, degrees), rtol=0, atol=1e-9)


def test_the_degrees_of_freedom_are_those_of_the_matrices() -> None:
    weights = np.random.default_rng(0).uniform(0.1, 5, (7, 3))
    weights[2, 1] = 0
    shares = weights / weights.sum(0)
    found = precision(torch.tensor(shares))
    for column, p in enumerate(shares.T):
        residuals = np.diag(p) @ (np.eye(7) - np.outer(np.ones(7), p))
        square = residuals @ residuals.T
        assert found.correction[column].item() == pytest.approx((p @ p) / np.trace(square))
        expected = np.trace(square) ** 2 / np.trace(square @ square)
        assert found.degrees[column].item() == pytest.approx(expected)
    equal = precision(torch.full((9,), 1 / 9, dtype=torch.float64))
    assert (equal.correction.item(), equal.degrees.item()) == pytest.approx((9 / 8, 8))


@pytest.mark.parametrize("number", [3, 5, 10, 30])
def test_intervals_of_few_values_hold_the_truth(number: int) -> None:
    values = np.random.default_rng(0).normal(0.7, 0.03, (6000, number))
    held = [abs(e.mean - 0.7) <= e.ci95 for e in map(estimate, torch.from_numpy(values))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.0085)  # three deviations of that share
    # a thousand of them hold it too seldom with 1.96
    normal = 1.96 * values.std(1, ddof=1) / math.sqrt(number)
    assert np.mean(abs(values.mean(1) - 0.7) <= normal) < 0.945


@pytest.mark.parametrize("weights", [(390, 192, 168, 132), (1, 2, 5), tuple(range(1, 11))])
def test_intervals_of_few_unequal_weights_hold_the_truth(weights: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).normal(0.7, 0.03, (3000, len(weights)))
    found = [estimate(v, torch.tensor(weights)) for v in torch.from_numpy(values)]
    assert np.mean([abs(e.mean - 0.7) <= e.ci95 for e in found]) >= 0.95 - 0.012


def rows(*numbers: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Episodes `numbers` with values that tell their number."""
    column = torch.tensor(numbers, dtype=torch.float64)
    return torch.tensor(numbers), {"loss": column / 10, "accuracy": column / 100}


def test_the_table_is_sorted_by_episode() -> None:
    table = EpisodeTable()
    for numbers in ((4, 0), (3,), (2, 1)):
        table.update(*rows(*numbers))
    columns = table.columns()
    assert list(columns) == ["episode", "loss", "accuracy"]
    assert columns["episode"].tolist() == [0, 1, 2, 3, 4]
    assert columns["loss"].tolist() == torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]).tolist()
    assert columns["accuracy"].tolist() == torch.tensor([0.0, 0.01, 0.02, 0.03, 0.04]).tolist()


def test_the_tables_of_two_ranks_merge_to_each_episode_once() -> None:
    even, odd = EpisodeTable(), EpisodeTable()
    even.update(*rows(0, 2))
    even.update(*rows(4))  # an odd number of episodes: the first rank has one more
    odd.update(*rows(1, 3))
    even.merge_state(odd)
    columns = even.columns()
    assert columns["episode"].tolist() == [0, 1, 2, 3, 4]
    assert columns["loss"].tolist() == torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]).tolist()


def test_the_table_holds_no_graph_and_begins_anew() -> None:
    table = EpisodeTable()
    table.update(torch.tensor([0]), {"loss": torch.ones(1, requires_grad=True) * 2})
    assert not table.columns()["loss"].requires_grad
    table.reset()
    table.update(*rows(7))
    assert table.columns()["episode"].tolist() == [7]
