"""The Siamese Network: losses by pair and by triplet, verification against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve
from torch import Tensor

from fewshot.backbones import MLP
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.learners import SiameseNetwork
from fewshot.learners.metric.pairs import Mining, squared_distances, triplet_loss, verification

WAY, EPISODES, FEATURES = 3, 3, 5
TASK = {"kind": "classification", "way": WAY}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def batch() -> Episode:
    labels = torch.stack([torch.tensor([0, 0, 1, 2])[torch.randperm(4)] for _ in range(EPISODES)])
    query = torch.stack([torch.arange(WAY).repeat(2)[torch.randperm(6)] for _ in range(EPISODES)])
    x, y = (torch.randn(EPISODES, n, 4, dtype=torch.float64) for n in (4, 6))
    return Episode(Examples(x, labels), Examples(y, query))


def mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()


def written_out(learner: SiameseNetwork, features: Tensor, labels: Tensor) -> Tensor:
    """The objective of one episode, pair by pair or triplet by triplet."""
    places = range(len(labels))
    same: list[Tensor] = []
    different: list[Tensor] = []
    for i in places:
        for j in places:
            if i == j:
                continue
            difference = features[i] - features[j]
            if learner.objective == "cross_entropy":
                assert learner.weights is not None
                logit = (learner.weights.weight[0] * difference.abs()).sum() + learner.weights.bias[
                    0
                ]
                share = 1 / (1 + (-logit).exp())
                positive, negative = -share.log(), -(1 - share).log()
            else:
                distance = ((difference**2).sum() + 1e-12).sqrt()
                positive, negative = (
                    (difference**2).sum(),
                    (learner.margin - distance).clamp(min=0) ** 2,
                )
            (same if labels[i] == labels[j] else different).append(
                positive if labels[i] == labels[j] else negative
            )
    if learner.objective != "triplet":
        return mean(same) / 2 + mean(different) / 2
    hinges = []
    for a in places:
        positives = [
            ((features[a] - features[p]) ** 2).sum()
            for p in places
            if p != a and labels[p] == labels[a]
        ]
        negatives = [
            ((features[a] - features[n]) ** 2).sum() for n in places if labels[n] != labels[a]
        ]
        if learner.mining == "all":
            hinges += [(p - n + learner.margin).clamp(min=0) for p in positives for n in negatives]
        elif learner.mining == "hardest":
            hinges.append((max(positives) - min(negatives) + learner.margin).clamp(min=0))
        else:
            for p in positives:
                farther = [n for n in negatives if n > p]
                hinges.append(
                    (p - (min(farther) if farther else max(negatives)) + learner.margin).clamp(
                        min=0
                    )
                )
    return mean(hinges)


@pytest.mark.parametrize(
    ("objective", "mining"),
    [
        ("cross_entropy", "all"),
        ("contrastive", "all"),
        ("triplet", "all"),
        ("triplet", "hardest"),
        ("triplet", "semi_hard"),
    ],
)
def test_losses_and_gradients_are_those_of_the_pairs(
    objective: str, mining: Mining, batch: Episode
) -> None:
    learner = SiameseNetwork(
        MLP(4, (7, FEATURES)),
        task=TASK,
        objective=objective,  # type: ignore[arg-type]
        mining=mining,
        margin=0.8,
    ).double()
    losses = []
    for i in range(EPISODES):
        support, query = episode(batch, i)
        inputs = torch.cat([support.inputs, query.inputs])  # type: ignore[list-item]
        losses.append(
            written_out(learner, learner.embed(inputs), torch.cat([support.targets, query.targets]))
        )
    (outcome,) = learner.run(batch, training=True)
    torch.testing.assert_close(outcome.loss, torch.stack(losses), rtol=1e-10, atol=1e-10)
    weights = list(learner.parameters())
    gradients = [
        torch.autograd.grad(loss.sum(), weights) for loss in (outcome.loss, torch.stack(losses))
    ]
    for one, two in zip(*gradients, strict=True):
        assert two.abs().max() > 1e-6
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


def test_semi_hard_mining_takes_the_farthest_where_no_negative_is_farther() -> None:
    features = torch.tensor([[0.0], [10.0], [1.0], [2.0]])
    labels = torch.tensor([0, 0, 1, 1])
    squared = squared_distances(features, features)
    # 0 to 10: no negative is beyond 100, the farthest is at 4; 10 to 0: none beyond 100, 81; 1 to
    # 2: 81; 2 to 1: 4
    expected = [100 - 4 + 1, 100 - 81 + 1, max(0, 1 - 81 + 1), max(0, 1 - 4 + 1)]
    assert triplet_loss(squared, labels, 1.0, "semi_hard").item() == pytest.approx(
        sum(expected) / 4
    )


def test_equal_features_have_finite_gradients() -> None:
    learner = SiameseNetwork(MLP(4, (FEATURES,)), task=TASK, objective="contrastive")
    support = Examples(torch.ones(1, 3, 4), torch.arange(3)[None])
    (outcome,) = learner.run(Episode(support, support), training=True)
    outcome.loss.sum().backward()  # type: ignore[no-untyped-call]
    assert all(
        torch.isfinite(weight.grad).all()
        for weight in learner.parameters()
        if weight.grad is not None
    )


@pytest.mark.parametrize("decide", ["nearest", "mean"])
def test_the_class_is_that_of_the_nearest_example_or_mean(decide: str, batch: Episode) -> None:
    learner = SiameseNetwork(
        MLP(4, (FEATURES,)),
        task=TASK,
        objective="contrastive",
        decide=decide,  # type: ignore[arg-type]
    ).double()
    support, query = episode(batch, 0)
    one, two = learner.embed(support.inputs), learner.embed(query.inputs)
    outputs = learner.predict(learner.adapt(support), query.inputs)
    for i, q in enumerate(two):
        for label in range(WAY):
            members = one[support.targets == label]
            compared = members.mean(0, keepdim=True) if decide == "mean" else members
            expected = -min(((q - s) ** 2).sum() for s in compared)
            torch.testing.assert_close(outputs[i, label], expected, rtol=1e-9, atol=1e-9)


def test_normalised_features_have_unit_length(batch: Episode) -> None:
    plain = SiameseNetwork(MLP(4, (FEATURES,)), task=TASK).double()
    unit = SiameseNetwork(plain.backbone, task=TASK, normalise=True).double()
    support, _ = episode(batch, 0)
    features = plain.embed(support.inputs)
    torch.testing.assert_close(
        unit.embed(support.inputs), features / (features**2).sum(1, keepdim=True).sqrt()
    )


@pytest.mark.parametrize("ties", [False, True])
def test_verification_agrees_with_scikit_learn(ties: bool) -> None:
    rng = np.random.default_rng(0)
    same = rng.random(300) < 0.2
    scores = -5 + 3 * (rng.normal(size=300) + same)  # logits far outside of [0, 1]
    scores = scores.round() if ties else scores
    auc, eer = verification(torch.from_numpy(scores), torch.from_numpy(same))
    assert auc.item() == pytest.approx(roc_auc_score(same, scores), abs=1e-6)
    false_positive, true_positive, _ = roc_curve(same, scores, drop_intermediate=False)
    grid = np.linspace(0, 1, 200001)
    gap = np.abs(1 - np.interp(grid, false_positive, true_positive) - grid)
    # a vertical piece of the curve is a jump for the grid; the crossing then lies on the jump
    assert eer.item() == pytest.approx(grid[gap.argmin()], abs=0.02)
    crossing = np.interp(eer.item(), false_positive, true_positive)
    assert abs(1 - crossing - eer.item()) < (0.05 if not ties else 0.02)


@pytest.mark.parametrize(("right", "auc", "eer"), [(True, 1.0, 0.0), (False, 0.0, 1.0)])
def test_verification_of_the_perfect_and_the_worst(right: bool, auc: float, eer: float) -> None:
    scores = torch.tensor([3.0, 2.0, -1.0, -2.0])
    same = (
        torch.tensor([True, True, False, False])
        if right
        else torch.tensor([False, False, True, True])
    )
    found = verification(scores, same)
    assert found[0].item() == auc
    assert found[1].item() == eer


def test_evaluation_reports_verification(batch: Episode) -> None:
    outcome = SiameseNetwork(MLP(4, (FEATURES,)), task=TASK).double().eval().evaluate(batch)
    assert set(outcome.metrics) == {"accuracy", "auc", "eer"}
    assert outcome.metrics["auc"].shape == (EPISODES,)
    assert all(
        0 <= value <= 1 and math.isfinite(value) for value in outcome.metrics["eer"].tolist()
    )
