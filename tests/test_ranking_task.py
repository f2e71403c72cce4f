"""The ranking task against written-out references: ties, uncounted candidates, query means."""

import math
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from fewshot.backbones.pixels import Pixels
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.learners.base import MetaLearner
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Ranking, mean_ranks
from fewshot.tasks.estimates import estimate

SCORE = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 2.0])


def written_out(scores: list[float], target: int) -> float:
    """The mean of the best and worst place sorting could give the target among those that count."""
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
    loss.backward()  # type: ignore[no-untyped-call]
    assert scores.grad is not None
    assert scores.grad.tolist() == [[-1.0, 0.5, 0.0, 0.5]]


def test_a_mean_weighted_by_queries_is_the_mean_over_queries() -> None:
    torch.manual_seed(0)
    ranks = [torch.randint(1, 20, (n,)).double() for n in (3, 50, 7)]
    episodes = torch.stack([rank.reciprocal().mean() for rank in ranks])
    weights = torch.tensor([len(rank) for rank in ranks])
    assert estimate(episodes, weights).mean == pytest.approx(
        torch.cat(ranks).reciprocal().mean().item(), abs=1e-12
    )


def test_equal_weights_are_no_weights() -> None:
    values = torch.tensor([0.2, 0.9, 0.4], dtype=torch.float64)
    weighted = estimate(values, torch.full((3,), 17))
    assert weighted == pytest.approx(estimate(values))


class Scores(MetaLearner):
    """The inputs are the scores; the support says nothing."""

    def adapt(self, support: Examples) -> None: ...

    def predict(self, adapted: None, inputs: Inputs) -> Tensor:
        assert isinstance(inputs, Tensor)
        return inputs

    def run(self, meta_batch: Episode, training: bool) -> Iterator[Outcome]:
        scores, targets = self.predict(None, meta_batch.query.inputs), meta_batch.query.targets
        found = {
            name: value[None] for name, value in self.task.metrics(scores[0], targets[0]).items()
        }
        yield Outcome(self.task.loss(scores[0], targets[0])[None], found, scores)


def test_a_learner_s_means_are_over_queries(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sets = [(torch.randn(1, n, 8), torch.zeros(1, n, dtype=torch.int64)) for n in (2, 40, 9)]
    episodes = [
        Episode(Examples(scores, targets), Examples(scores, targets)) for scores, targets in sets
    ]
    learner = Scores(Pixels(8), task={"kind": "ranking"})
    trainer = L.Trainer(
        logger=False, enable_progress_bar=False, accelerator="cpu", default_root_dir=tmp_path
    )
    trainer.test(learner, DataLoader(episodes, batch_size=None), verbose=False)  # type: ignore[arg-type]
    ranks = torch.cat([mean_ranks(scores[0], targets[0]) for scores, targets in sets])
    assert learner.estimates["test"]["mrr"].mean == pytest.approx(
        ranks.reciprocal().mean().item(), abs=1e-6
    )
    assert "query_count" not in learner.estimates["test"]
    assert learner.columns["test"]["query_count"].tolist() == [2, 40, 9]
