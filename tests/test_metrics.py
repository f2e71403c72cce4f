import doctest
import math

import numpy as np
import pytest
import torch

import fewshot.tasks.estimates
from fewshot.learners.table import EpisodeTable
from fewshot.tasks.estimates import estimate


def test_the_estimate_is_that_of_numpy() -> None:
    values = np.random.default_rng(0).random(601).astype(np.float32)
    mean, ci95 = estimate(torch.from_numpy(values))
    exact = values.astype(np.float64)
    assert mean == pytest.approx(exact.mean(), rel=1e-14)
    assert ci95 == pytest.approx(1.96 * exact.std(ddof=1) / math.sqrt(601), rel=1e-12)


def test_the_interval_of_one_episode_is_unknown() -> None:
    mean, ci95 = estimate(torch.tensor([0.25]))
    assert mean == 0.25
    assert math.isnan(ci95)


def test_the_documented_example_is_true() -> None:
    result = doctest.testmod(fewshot.tasks.estimates, optionflags=doctest.ELLIPSIS)
    assert result.attempted >= 1
    assert result.failed == 0


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
