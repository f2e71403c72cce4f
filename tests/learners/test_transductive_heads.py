"""Transductive heads against their losses and iterations written out, by autograd and plainly."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.learners import PTMAP, TIM, TransductiveFineTuning
from fewshot.learners.transfer.feature_head import Labelled
from fewshot.learners.transfer.prototype_descent import entropy_slopes, through_softmax
from fewshot.learners.transfer.pt_map import AT_ONCE, balanced_assignments

WAY, D = 4, 20
HEADS: dict[type, dict[str, Any]] = {
    TIM: {"steps": 12, "lr": 1e-2, "support_weight": 0.7, "marginal_weight": 1.3},
    TransductiveFineTuning: {"steps": 12, "lr": 1e-2, "temperature": 3.0},
    PTMAP: {"steps": 6, "step_size": 0.4},
}


class Nothing(nn.Module):
    out_features = D


def made(kind: Any, dtype: torch.dtype = torch.float64, **given: Any) -> Any:
    task = {"kind": "classification", "way": WAY}
    if kind is not PTMAP:
        given["transform"] = "none"
    return kind(Nothing(), task=task, train_classes=5, **HEADS[kind] | given).to(dtype)


def drawn(shot: int, queries: tuple[int, ...], seed: int = 0) -> tuple[Labelled, Tensor]:
    """Support and queries of an episode; of a class as many queries as it says."""
    rng = np.random.default_rng(seed)
    centres = rng.random((WAY, D))
    labels = torch.arange(WAY).repeat_interleave(shot)
    asked = np.repeat(np.arange(WAY), queries)
    support, query = (
        torch.from_numpy(np.maximum(centres[of] + 0.3 * rng.standard_normal((len(of), D)), 0))
        for of in (labels.numpy(), asked)
    )
    return Labelled(support, F.one_hot(labels, WAY).double()), query


def same(one: Tensor, other: Tensor, reach: float = 1e-10) -> None:
    torch.testing.assert_close(one, other, rtol=reach, atol=reach)


# ------------------------------------------------------------------ written out, with autograd


def entropy(p: Tensor) -> Tensor:
    return -(p * (p + 1e-12).log()).sum(-1)


def by_autograd(start: Tensor, loss: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    moved = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        torch.autograd.backward(loss(moved))
        optimizer.step()
    return moved.detach()


def tim(learner: TIM, support: Labelled, queries: Tensor) -> Tensor:
    def outputs(features: Tensor, prototypes: Tensor) -> Tensor:
        cosines = F.normalize(features, dim=-1) @ F.normalize(prototypes, dim=-1).T
        return learner.temperature * cosines

    def loss(prototypes: Tensor) -> Tensor:
        known = F.cross_entropy(outputs(support.features, prototypes), support.labels)
        p = outputs(queries, prototypes).softmax(-1)
        marginal, conditional = entropy(p.mean(0)), entropy(p).mean()
        information = learner.marginal_weight * marginal - learner.conditional_weight * conditional
        return learner.support_weight * known - information

    return outputs(queries, by_autograd(support.means, loss, learner.steps, learner.lr))


def fine_tuning(learner: TransductiveFineTuning, support: Labelled, queries: Tensor) -> Tensor:
    def outputs(features: Tensor, prototypes: Tensor) -> Tensor:
        squares = (features[:, None] - prototypes).square().sum(-1)
        return -learner.temperature * (squares + 1e-12).sqrt()

    def loss(prototypes: Tensor) -> Tensor:
        known = F.cross_entropy(outputs(support.features, prototypes), support.labels)
        return known + entropy(outputs(queries, prototypes).softmax(-1)).mean()

    return outputs(queries, by_autograd(support.means, loss, learner.steps, learner.lr))


def sinkhorn(costs: Tensor, sharpness: float) -> Tensor:
    """The iterations as the paper's code has them, of one episode (n, N)."""
    plan = (-sharpness * (costs - costs.amin(1, keepdim=True))).exp()
    for _ in range(1000):
        rows = plan.sum(1)
        plan = plan / rows[:, None]
        plan = plan * (len(costs) / costs.shape[1]) / plan.sum(0)
        if (rows - plan.sum(1)).abs().max() < 1e-6:
            break
    return plan


def pt_map(learner: PTMAP, support: Labelled, queries: Tensor) -> Tensor:
    def prepared(features: Tensor) -> Tensor:
        features = F.normalize((features.relu() + 1e-6) ** learner.exponent, dim=-1)
        return F.normalize(features - features.mean(0), dim=-1)

    def plan(centres: Tensor) -> Tensor:
        return sinkhorn((queries[:, None] - centres).square().sum(-1), learner.sharpness)

    support, queries = support._replace(features=prepared(support.features)), prepared(queries)
    centres, together = support.means, torch.cat([support.features, queries])
    for _ in range(learner.steps):
        shares = torch.cat([support.labels, plan(centres)])
        new = shares.T @ together / shares.sum(0)[:, None]
        centres = centres + learner.step_size * (new - centres)
    return (plan(centres) + 1e-12).log()


WRITTEN: dict[type, Any] = {TIM: tim, TransductiveFineTuning: fine_tuning, PTMAP: pt_map}


@pytest.mark.parametrize("queries", [(6, 6, 6, 6), (11, 1, 0, 5)], ids=["balanced", "unbalanced"])
@pytest.mark.parametrize("shot", [1, 3])
@pytest.mark.parametrize("kind", WRITTEN)
def test_heads_are_what_is_written_out(kind: type, shot: int, queries: tuple[int, ...]) -> None:
    learner, episode = made(kind), drawn(shot, queries)
    found = learner.answer(*episode)
    same(found, WRITTEN[kind](learner, *episode), 1e-9)
    untuned = made(kind, steps=0).answer(*episode)
    assert not torch.allclose(untuned, found, atol=1e-2)


@pytest.mark.parametrize("kind", WRITTEN)
def test_many_episodes_at_once_are_as_one_at_a_time(kind: type) -> None:
    learner = made(kind)
    episodes = [drawn(2, sizes, seed) for seed, sizes in enumerate([(5,) * 4, (14, 2, 3, 1)] * 3)]
    features, labels, queries = (
        torch.stack(part) for part in zip(*((*known, new) for known, new in episodes), strict=True)
    )
    for dtype, reach in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        head = learner.to(dtype)
        of_support, of_class, asked = (part.to(dtype) for part in (features, labels, queries))
        together = head.answer(Labelled(of_support, of_class), asked).softmax(-1)
        for i, outputs in enumerate(together):
            alone = head.answer(Labelled(of_support[i], of_class[i]), asked[i])
            torch.testing.assert_close(outputs, alone.softmax(-1), rtol=0, atol=reach)


@pytest.mark.parametrize("kind", [TIM, TransductiveFineTuning])
def test_a_class_without_features_breaks_nothing(kind: type) -> None:
    learner, (support, queries) = made(kind, torch.float32), drawn(1, (5, 5, 5, 5))
    features = support.features.float()
    features[0] = 0
    queries = torch.cat([queries.float(), features])  # and queries that are their class's mean
    assert learner.answer(Labelled(features, support.labels.float()), queries).isfinite().all()


def test_slopes_are_autograds() -> None:
    logits = torch.randn(3, WAY, 7, generator=torch.Generator().manual_seed(0)).double()
    logits.requires_grad_()
    p = logits.softmax(-2)
    by_p, by_logits = torch.autograd.grad(entropy(p.mT).sum(), (p, logits))
    same(entropy_slopes(p), by_p)
    same(through_softmax(p, by_p), by_logits)


# ------------------------------------------------------------------ Sinkhorn's iterations


@pytest.mark.parametrize("sharpness", [0.01, 1.0, 10.0, 60.0])
def test_each_episode_ends_where_its_own_iterations_do(sharpness: float) -> None:
    generator = torch.Generator().manual_seed(0)
    costs = torch.rand(6, 12, WAY, generator=generator).double()
    costs[..., 0] -= torch.linspace(0, 0.4, 6)[:, None]
    plans = balanced_assignments(costs, sharpness)
    for plan, one in zip(plans, costs, strict=True):
        same(plan, sinkhorn(one, sharpness), 1e-9)


def test_an_episode_ends_within_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """However far apart looks are, the iteration is the same."""
    costs = torch.rand(5, 9, 3, generator=torch.Generator().manual_seed(1)).double()
    found = balanced_assignments(costs, 8.0)
    for number in (1, 2, 3 * AT_ONCE):
        monkeypatch.setattr("fewshot.learners.transfer.pt_map.AT_ONCE", number)
        same(balanced_assignments(costs, 8.0), found, 1e-14)


def test_a_column_far_from_all_is_filled_in_float32() -> None:
    costs = torch.tensor([[0.0, 3.0], [0.1, 3.5], [0.0, 4.0], [0.2, 3.9]])
    plan = balanced_assignments(costs, 100.0)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(-2), torch.tensor([2.0, 2.0]))
