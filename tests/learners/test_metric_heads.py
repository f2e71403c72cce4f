"""Matching, Relation, R2D2 and unequal shots against equations, number by number in float64."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4, ResNet12
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.learners import (
    R2D2,
    MatchingNetwork,
    MetricLearner,
    PrototypicalNetwork,
    RelationNetwork,
)
from fewshot.learners.metric.matching_network import TINY
from fewshot.learners.metric.prototypical_network import spread_of_means
from fewshot.learners.metric.r2d2 import ridge_regression

WAY, EPISODES, FEATURES = 3, 4, 5
TASK = {"kind": "classification", "way": WAY}


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.fixture
def batch() -> Episode:
    labels = torch.stack(
        [torch.tensor([0, 0, 0, 1, 2, 2])[torch.randperm(6)] for _ in range(EPISODES)]
    )
    query = torch.stack([torch.arange(WAY).repeat(2)[torch.randperm(6)] for _ in range(EPISODES)])
    x, y = (torch.randn(EPISODES, 6, 4, dtype=torch.float64) for _ in range(2))
    return Episode(Examples(x, labels), Examples(y, query))


def agree(learner: MetricLearner, batch: Episode, losses: list[Tensor]) -> None:
    """Losses and gradients of the learner are those of the losses written out."""
    (outcome,) = learner.run(batch, training=True)
    torch.testing.assert_close(outcome.loss, torch.stack(losses), rtol=1e-10, atol=1e-10)
    weights = list(learner.parameters())
    gradients = [
        torch.autograd.grad(loss, weights)
        for loss in (outcome.loss.mean(), torch.stack(losses).mean())
    ]
    for one, two in zip(*gradients, strict=True):
        assert two.abs().max() > 1e-9
        torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


def features(
    learner: MetricLearner, batch: Episode, i: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    support, query = episode(batch, i)
    return (
        learner.embed(support.inputs),
        support.targets,
        learner.embed(query.inputs),
        query.targets,
    )


# ---------------------------------------------------------------- Matching Networks


def attention(query: Tensor, keys: Tensor, distance: str, scale: float) -> Tensor:
    weights = []
    for key in keys:
        if distance == "cosine":
            weights.append(scale * (query @ key) / (query.norm() * key.norm()))
        else:
            weights.append(-scale * ((query - key) ** 2).sum())
    exponentials = torch.stack(weights).exp()
    return exponentials / exponentials.sum()


@pytest.mark.parametrize(("distance", "scale"), [("cosine", 10.0), ("euclidean", 1.0)])
def test_matching_sums_the_attention_of_each_class(
    distance: Literal["cosine", "euclidean"], scale: float, batch: Episode
) -> None:
    learner = MatchingNetwork(MLP(4, (7, FEATURES)), task=TASK, distance=distance).double()
    losses = []
    for i in range(EPISODES):
        support, labels, query, targets = features(learner, batch, i)
        of_query = []
        for q, target in zip(query, targets, strict=True):
            a = attention(q, support, distance, scale)
            of_query.append(-((a[labels == target].sum() + TINY) / (1 + WAY * TINY)).log())
        losses.append(torch.stack(of_query).mean())
    agree(learner, batch, losses)


def lstm_cell(x: Tensor, h: Tensor, c: Tensor, weights: list[Tensor]) -> tuple[Tensor, Tensor]:
    """One step for one vector; torch's order of gates: input, forget, cell, output."""
    w_x, w_h, b_x, b_h = weights
    i, f, g, o = (w_x @ x + b_x + w_h @ h + b_h).chunk(4)
    cell = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def test_full_context_embeddings_follow_the_paper(batch: Episode) -> None:
    learner = MatchingNetwork(
        MLP(4, (7, FEATURES)), task=TASK, full_context=True, read_steps=3
    ).double()
    context = learner.full_context
    assert context is not None
    names = [f"{kind}_{part}_l0" for kind in ("weight", "bias") for part in ("ih", "hh")]
    forward = [getattr(context.encoder, name) for name in names]
    backward = [getattr(context.encoder, f"{name}_reverse") for name in names]
    cell = [
        context.cell.weight_ih,
        context.cell.weight_hh,
        context.cell.bias_ih,
        context.cell.bias_hh,
    ]
    zero = torch.zeros(FEATURES, dtype=torch.float64)
    losses = []
    for i in range(EPISODES):
        support, labels, query, targets = features(learner, batch, i)
        outputs = []
        for weights, order in ((forward, range(6)), (backward, reversed(range(6)))):
            h, c, found = zero, zero, [zero] * 6
            for s in order:
                h, c = lstm_cell(support[s], h, c, weights)
                found[s] = h
            outputs.append(torch.stack(found))
        keys = outputs[0] + outputs[1] + support  # g
        of_query = []
        for q, target in zip(query, targets, strict=True):
            h, c = zero, zero
            for _ in range(3):
                read = ((keys @ h).exp() / (keys @ h).exp().sum()) @ keys
                h_hat, c = lstm_cell(torch.cat([q, read]), h, c, cell)
                h = h_hat + q  # f
            a = attention(h, keys, "cosine", 10.0)
            of_query.append(-((a[labels == target].sum() + TINY) / (1 + WAY * TINY)).log())
        losses.append(torch.stack(of_query).mean())
    agree(learner, batch, losses)


# ---------------------------------------------------------------- Relation Networks


@pytest.mark.parametrize("objective", ["mse", "cross_entropy"])
def test_relation_scores_are_those_of_the_joined_vectors(
    objective: Literal["mse", "cross_entropy"], batch: Episode
) -> None:
    learner = RelationNetwork(
        MLP(4, (7, FEATURES)), task=TASK, objective=objective, hidden=6
    ).double()
    module = learner.relation
    assert isinstance(module.of_class, nn.Linear)
    assert isinstance(module.of_query, nn.Linear)
    # acts on [class; query]
    joined = torch.cat([module.of_class.weight, module.of_query.weight], 1)
    pairs, rights = [], []
    for i in range(EPISODES):
        support, labels, query, targets = features(learner, batch, i)
        classes = [support[labels == label].sum(0) for label in range(WAY)]
        pairs += [joined @ torch.cat([c, q]) + module.of_class.bias for q in query for c in classes]
        rights += [float(label == target) for target in targets for label in range(WAY)]
    hidden = torch.stack(pairs)
    # over all pairs of the batch
    normal = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    norm, _, _, first, _, second = module.score
    assert isinstance(norm, nn.BatchNorm1d)
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    activated = (normal * norm.weight + norm.bias).clamp(min=0)
    scores = (activated @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
    scores, right = (
        scores.view(EPISODES, 6, WAY),
        torch.tensor(rights, dtype=torch.float64).view(EPISODES, 6, WAY),
    )
    if objective == "mse":
        losses = ((1 / (1 + (-scores).exp()) - right) ** 2).mean((1, 2))
    else:
        losses = -((scores.exp() / scores.exp().sum(2, keepdim=True)).log() * right).sum(2).mean(1)
    # so that no gradient is a difference of equal numbers
    for p in (module.of_class.bias, first.bias):
        p.requires_grad_(p is first.bias)
    weights = [p for p in learner.parameters() if p.requires_grad]
    (outcome,) = learner.run(batch, training=True)
    torch.testing.assert_close(outcome.loss, losses, rtol=1e-10, atol=1e-10)
    gradients = [
        torch.autograd.grad(loss, weights) for loss in (outcome.loss.mean(), losses.mean())
    ]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-11)


def test_relation_reads_joined_maps() -> None:
    learner = (
        RelationNetwork(Conv4(1, 16, width=4, pooled_blocks=2), task=TASK, hidden=6).double().eval()
    )
    assert learner.on_maps
    support = Examples(torch.rand(6, 1, 16, 16, dtype=torch.float64), torch.arange(WAY).repeat(2))
    query = torch.rand(4, 1, 16, 16, dtype=torch.float64)
    scores = learner.predict(learner.adapt(support), query)
    backbone, module = learner.backbone, learner.relation
    assert isinstance(backbone, Conv4)
    assert isinstance(module.of_class, nn.Conv2d)
    assert isinstance(module.of_query, nn.Conv2d)
    # the paper's: one convolution on the maps one after the other
    whole = nn.Conv2d(8, 6, 3, padding=1).double()
    with torch.no_grad():
        whole.weight.copy_(torch.cat([module.of_class.weight, module.of_query.weight], 1))
        assert module.of_class.bias is not None
        assert whole.bias is not None
        whole.bias.copy_(module.of_class.bias)
        maps = backbone.blocks(support.inputs)
        classes = torch.stack([maps[support.targets == label].sum(0) for label in range(WAY)])
        for i, q in enumerate(backbone.blocks(query)):
            for j, c in enumerate(classes):
                expected = module.score(whole(torch.cat([c, q])[None]))
                torch.testing.assert_close(scores[i, j], expected[0, 0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("pooled_blocks", [2, 4])
def test_relation_takes_maps_where_they_can_be_pooled_twice(pooled_blocks: int) -> None:
    learner = RelationNetwork(Conv4(1, 28, width=4, pooled_blocks=pooled_blocks), task=TASK)
    assert learner.on_maps == (pooled_blocks == 2)


def test_the_maps_of_a_backbone_become_its_features() -> None:
    images = torch.rand(3, 1, 64, 64)
    for network in (Conv4(1, 64, width=4), ResNet12(1, 64, (2, 3, 4, 5))):
        network.eval()
        maps = network.maps(images)
        assert tuple(maps.shape) == (3, *network.map_shape)
    conv4 = Conv4(1, 28, width=4, pooled_blocks=1).eval()
    assert conv4.map_shape == (4, 14, 14)
    assert torch.equal(
        conv4(torch.ones(1, 1, 28, 28)), conv4.maps(torch.ones(1, 1, 28, 28)).flatten(1)
    )


# ---------------------------------------------------------------- R2D2


@pytest.mark.parametrize("size", [4, 9])
def test_ridge_regression_is_the_minimum(size: int) -> None:
    x, y = torch.randn(size, 6, dtype=torch.float64), torch.randn(size, 2, dtype=torch.float64)
    penalty = torch.tensor(0.7, dtype=torch.float64)
    weights = ridge_regression(x, y, penalty).requires_grad_()
    objective = ((x @ weights - y) ** 2).sum() + penalty * (weights**2).sum()
    (gradient,) = torch.autograd.grad(objective, weights)
    assert gradient.abs().max() < 1e-10
    # both closed forms
    primal = torch.linalg.inv(x.T @ x + penalty * torch.eye(6, dtype=torch.float64)) @ x.T @ y
    torch.testing.assert_close(weights, primal, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [3, 8])  # more examples than dimensions, and fewer
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("mean_error", [False, True])
def test_r2d2_is_a_scaled_ridge_regression_of_the_labels(
    mean_error: bool, intercept: bool, width: int, batch: Episode
) -> None:
    learner = R2D2(
        MLP(4, (7, width)), task=TASK, penalty=0.5, intercept=intercept, mean_error=mean_error
    ).double()
    losses = []
    for i in range(EPISODES):
        support, labels, query, targets = features(learner, batch, i)
        one_hot = torch.eye(WAY, dtype=torch.float64)[labels]
        # as in the authors' code: a column of ones, then features and labels over the root of S
        rows = torch.cat([support, torch.ones(6, 1, dtype=torch.float64)], 1)
        rows = rows if intercept else support
        root = math.sqrt(6) if mean_error else 1.0
        inverse = torch.linalg.inv(
            rows.T @ rows / root**2
            + learner.log_penalty.exp() * torch.eye(rows.shape[1], dtype=torch.float64)
        )
        weights = inverse @ (rows / root).T @ (one_hot / root)
        outputs = query @ weights[:width] + (weights[width] if intercept else 0.0)
        logits = learner.scale * outputs
        losses.append(-(logits - logits.exp().sum(1, keepdim=True).log())[range(6), targets].mean())
    agree(learner, batch, losses)  # no gradient is zero
    assert math.isclose(learner.log_penalty.exp().item(), 0.5, rel_tol=1e-6)


# ---------------------------------------------------------------- unequal shots


def test_the_spread_is_what_a_mean_of_few_examples_adds() -> None:
    sizes = [1, 2, 7]
    labels = torch.tensor([label for label, size in enumerate(sizes) for _ in range(size)])
    draws = 20000
    centres = torch.randn(3, 4, dtype=torch.float64)
    examples = centres[labels] + 0.5 * torch.randn(draws, 10, 4, dtype=torch.float64)
    added, estimated = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for label in range(3):
        added[label] = (
            (examples[:, labels == label].mean(1) - centres[label]).square().sum(1).mean()
        )
    for one in examples[:2000]:
        estimated += spread_of_means(one, labels, 3) / 2000
    torch.testing.assert_close(estimated, added, rtol=0.04, atol=0)
    torch.testing.assert_close(
        added, 4 * 0.25 / torch.tensor(sizes, dtype=torch.float64), rtol=0.04, atol=0
    )


def test_unequal_shots_change_nothing_where_shots_are_equal_or_one() -> None:
    plain = PrototypicalNetwork(MLP(4, (FEATURES,)), task=TASK).double()
    corrected = PrototypicalNetwork(plain.backbone, task=TASK, unequal_shots=True).double()
    query = torch.randn(5, 4, dtype=torch.float64)
    for labels, same in (
        (torch.arange(3), True),
        (torch.arange(3).repeat(2), True),
        (torch.tensor([0, 0, 1, 2]), False),
    ):
        support = Examples(torch.randn(len(labels), 4, dtype=torch.float64), labels)
        one, two = (
            learner.predict(learner.adapt(support), query).softmax(1)
            for learner in (plain, corrected)
        )
        assert torch.allclose(one, two, rtol=1e-10) == same


def test_a_learned_scale_is_a_weight() -> None:
    learner = PrototypicalNetwork(MLP(4, (FEATURES,)), task=TASK, scale=2.5, learn_scale=True)
    assert dict(learner.named_parameters())["scale"].item() == 2.5
    assert "scale" not in dict(
        PrototypicalNetwork(MLP(4, (FEATURES,)), task=TASK).named_parameters()
    )
