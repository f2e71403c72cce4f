"""CAVIA against plain autograd, literal concatenation and finite differences, in float64."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4, Pixels
from fewshot.engine.episode_map import Parallel
from fewshot.episodes.types import Episode, Examples, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners import CAVIA
from fewshot.learners.optimization.cavia import Concatenation, FiLM

WAY, SHOT, QUERIES, EPISODES, CONTEXT, LR, STEPS = 3, 2, 2, 3, 4, 0.7, 2
CLASSIFICATION = {"kind": "classification", "way": WAY}
Weights = dict[str, Tensor]


# ---------------------------------------------------------------- the reference: no nn.Module, no t


def concatenated(w: Weights, phi: Tensor, x: Tensor) -> Tensor:
    """An MLP on inputs and context side by side, and the head."""
    x = torch.cat([x.flatten(1), phi.expand(len(x), -1)], 1)
    first = torch.cat([w["backbone.layers.0.weight"], w["context.weight"]], 1)
    x = (x @ first.T + w["backbone.layers.0.bias"]).clamp(min=0)
    x = (x @ w["backbone.layers.2.weight"].T + w["backbone.layers.2.bias"]).clamp(min=0)
    return x @ w["head.weight"].T + w["head.bias"]


def film(w: Weights, phi: Tensor, x: Tensor) -> Tensor:
    """Conv4 with scale and shift between the third block's pooling and its ReLU, and the head."""
    for i in range(4):
        x = F.conv2d(x, w[f"backbone.blocks.{i}.0.weight"], padding=1)
        mean, variance = (
            x.mean([0, 2, 3], keepdim=True),
            x.var([0, 2, 3], correction=0, keepdim=True),
        )
        scale, shift = (
            w[f"backbone.blocks.{i}.1.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias")
        )
        x = F.max_pool2d((x - mean) / (variance + 1e-5).sqrt() * scale + shift, 2)
        if i == 2:
            both = w["context.linear.weight"] @ phi + w["context.linear.bias"]
            gamma, beta = both[: x.shape[1]], both[x.shape[1] :]
            x = gamma[None, :, None, None] * x + beta[None, :, None, None]
        x = x.clamp(min=0)
    return x.flatten(1) @ w["head.weight"].T + w["head.bias"]


Case = tuple[
    Callable[[], nn.Module],
    dict[str, Any],
    Callable[[Weights, Tensor, Tensor], Tensor],
    dict[str, Any],
]
CASES: dict[str, Case] = {
    "concat": (lambda: MLP(2 * 16 * 16, (6, 5)), {}, concatenated, CLASSIFICATION),
    "regression": (
        lambda: MLP(2 * 16 * 16, (6, 5)),
        {},
        concatenated,
        {"kind": "regression", "targets": 2},
    ),
    "film": (lambda: Conv4(2, 16, width=4), {"film_after": "blocks.2.2"}, film, CLASSIFICATION),
}


def reference(
    learner: CAVIA, case: str, batch: Episode, first_order: bool
) -> tuple[Tensor, Tensor]:
    """Meta-loss and meta-gradient in `learner.parameters()` order, through unrolled steps."""
    forward = CASES[case][2]
    measure: Any = F.mse_loss if case == "regression" else F.cross_entropy
    w = {name: p.detach().clone().requires_grad_() for name, p in learner.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        phi = torch.zeros(CONTEXT, dtype=torch.float64, requires_grad=True)
        for _ in range(STEPS):
            loss = measure(forward(w, phi, support.inputs), support.targets)  # type: ignore[arg-type]
            (gradient,) = torch.autograd.grad(loss, phi, create_graph=True)
            phi = phi - LR * (gradient.detach() if first_order else gradient)
        total = total + measure(forward(w, phi, query.inputs), query.targets) / EPISODES  # type: ignore[arg-type]
    return total.detach(), torch.cat(
        [g.flatten() for g in torch.autograd.grad(total, list(w.values()))]
    )


def make(case: str, **kwargs: Any) -> CAVIA:
    torch.manual_seed(0)
    backbone, arguments, _, task = CASES[case]
    learner = CAVIA(
        backbone(),
        task=task,
        num_context=CONTEXT,
        inner_lr=LR,
        inner_steps=STEPS,
        **arguments,
        **kwargs,
    ).double()
    for name, parameter in learner.named_parameters():
        if ".1." in name or "context" in name:  # scales, shifts and a context that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.5)
    return learner


def make_batch(case: str) -> Episode:
    torch.manual_seed(1)

    def examples(a_class: int) -> Examples:
        inputs = torch.rand(EPISODES, WAY * a_class, 2, 16, 16, dtype=torch.float64)
        if case == "regression":
            return Examples(inputs, torch.randn(EPISODES, WAY * a_class, 2, dtype=torch.float64))
        return Examples(inputs, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(SHOT), examples(QUERIES))


def loss_and_gradient(learner: CAVIA, batch: Episode) -> tuple[Tensor, Tensor]:
    learner.zero_grad()
    losses = []
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / EPISODES)
        losses.append(outcome.loss.detach())
    gradients = [p.grad for p in learner.parameters()]
    assert all(g is not None for g in gradients)
    return torch.cat(losses).mean(), torch.cat([g.flatten() for g in gradients if g is not None])


def distance(one: Tensor, two: Tensor) -> float:
    return ((one - two).abs().max() / two.abs().max()).item()


# ---------------------------------------------------------------- the meta-gradient


@pytest.mark.parametrize("how", ["loop", "vmap", "checkpoint"])
@pytest.mark.parametrize("first_order", [False, True], ids=["second", "first"])
@pytest.mark.parametrize("case", CASES)
def test_the_meta_gradient_is_that_of_plain_autograd(
    case: str, first_order: bool, how: str
) -> None:
    run: dict[str, Any] = (
        {"checkpoint_inner_steps": True} if how == "checkpoint" else {"episode_parallel": how}
    )
    learner, batch = make(case, first_order=first_order, **run), make_batch(case)
    loss, gradient = loss_and_gradient(learner, batch)
    expected_loss, expected = reference(learner, case, batch, first_order)
    assert distance(loss, expected_loss) < 1e-12
    assert distance(gradient, expected) < 1e-9
    # the two orders differ, so that the test can tell
    assert distance(reference(learner, case, batch, not first_order)[1], expected) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_the_meta_gradient_is_that_of_finite_differences(case: str) -> None:
    learner, batch = make(case), make_batch(case)
    whole = loss_and_gradient(learner, batch)[1]
    start = [p.detach().clone() for p in learner.parameters()]
    generator = torch.Generator().manual_seed(2)
    direction = [torch.randn(v.shape, generator=generator, dtype=torch.float64) for v in start]
    length = torch.cat([d.flatten() for d in direction]).norm()

    def loss(step: float) -> Tensor:
        with torch.no_grad():
            for parameter, value, change in zip(
                learner.parameters(), start, direction, strict=True
            ):
                parameter.copy_(value + step * change / length)
            return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).mean()

    slope = (loss(1e-6) - loss(-1e-6)) / 2e-6
    expected = whole @ torch.cat([d.flatten() for d in direction]) / length
    assert slope.item() == pytest.approx(expected.item(), rel=1e-5)


# ---------------------------------------------------------------- how the context enters


def test_a_map_added_to_the_first_layer_is_the_context_beside_the_input() -> None:
    learner = make("concat")
    assert isinstance(learner.context, Concatenation)
    size = 2 * 16 * 16
    literal = MLP(size + CONTEXT, (6, 5)).double()
    weights = dict(learner.backbone.state_dict())
    weights["layers.0.weight"] = torch.cat([weights["layers.0.weight"], learner.context.weight], 1)
    literal.load_state_dict(weights)
    x, phi = torch.randn(7, size, dtype=torch.float64), torch.randn(CONTEXT, dtype=torch.float64)
    expected = learner.head(literal(torch.cat([x, phi.expand(7, -1)], 1)))
    torch.testing.assert_close(
        learner.forward_with({"context.phi": phi}, x), expected, rtol=1e-12, atol=1e-12
    )


def test_the_map_begins_as_torch_initialises_a_layer_of_that_many_inputs() -> None:
    torch.manual_seed(0)
    learner = CAVIA(MLP(11, (4000,)), task=CLASSIFICATION, num_context=5)
    assert isinstance(learner.context, Concatenation)
    assert learner.context.weight.shape == (4000, 5)
    both = nn.Linear(16, 4000).weight
    for one in (learner.context.weight, both):
        assert 0.249 < one.abs().max() <= 0.25
        assert one.std().item() == pytest.approx(0.25 / 3**0.5, rel=0.02)


@pytest.mark.parametrize("case", CASES)
def test_only_the_context_adapts_and_it_begins_at_zero(case: str) -> None:
    learner, batch = make(case), make_batch(case)
    support, query = episode(batch, 0)
    before, after = learner.adapt_for(support, 0), learner.adapt(support)
    assert list(before.weights) == list(after.weights) == ["context.phi"]
    assert not before.weights["context.phi"].any()
    assert after.weights["context.phi"].abs().min() > 0
    assert not learner.context.phi.any()  # the next task begins at zero too
    if case != "film":
        return
    fresh = CAVIA(Conv4(2, 16, width=4), task=CLASSIFICATION, film_after="blocks.2.2").double()
    assert isinstance(query.inputs, Tensor)
    torch.testing.assert_close(
        fresh.predict(fresh.adapt_for(support, 0), query.inputs),
        film(  # with scales of 1 and shifts of 0 the network is that without context
            dict(fresh.named_parameters())
            | {
                "context.linear.weight": torch.zeros(8, 5, dtype=torch.float64),
                "context.linear.bias": torch.tensor([1.0] * 4 + [0.0] * 4, dtype=torch.float64),
            },
            torch.zeros(5, dtype=torch.float64),
            query.inputs,
        ),
    )


def test_the_backbone_is_left_as_it_is() -> None:
    network, batch = Conv4(2, 16, width=4).double(), make_batch("film")
    names = [name for name, _ in network.named_modules()]
    learner = CAVIA(network, task=CLASSIFICATION, film_after="blocks.2.2").double()
    loss_and_gradient(learner, batch)
    assert [name for name, _ in network.named_modules()] == names
    assert not any(module._forward_hooks for module in network.modules())
    twin = copy.deepcopy(learner)
    assert isinstance(learner.context, FiLM)
    with torch.no_grad():
        learner.context.linear.weight.add_(1)  # a copy has a context of its own
    assert not torch.equal(twin.evaluate(batch).outputs, learner.evaluate(batch).outputs)


def test_a_frozen_backbone_stays_and_the_context_learns() -> None:
    backbone = Conv4(2, 16, width=4)
    backbone.requires_grad_(False)
    learner = CAVIA(backbone, task=CLASSIFICATION, film_after="blocks.2.2").double()
    for outcome in learner.run(make_batch("film"), training=True):
        torch.autograd.backward(outcome.loss.sum())
    trained = {name for name, p in learner.named_parameters() if p.grad is not None}
    assert trained == {"context.linear.weight", "context.linear.bias", "head.weight", "head.bias"}


# ---------------------------------------------------------------- evaluation, checkpoints


@pytest.mark.parametrize("policy", ["transductive", "inductive"])
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_adapt_and_predict_of_each_episode(
    case: str, parallel: Parallel, policy: str
) -> None:
    learner = make(
        case, batchnorm=policy, eval_inner_steps=3, eval_curve="all", episode_parallel=parallel
    )
    batch = make_batch(case)
    outcome = learner.evaluate(batch)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        outputs = learner.predict(learner.adapt(support), query.inputs)
        torch.testing.assert_close(outcome.outputs[i], outputs, rtol=1e-10, atol=1e-10)
    assert {f"loss_step{k}" for k in range(4)} < set(outcome.metrics)


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoint_rebuilds_its_learner(case: str, tmp_path: Path) -> None:
    learner = make(case).float()
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    trainer.strategy.connect(learner)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    loaded = CAVIA.load_from_checkpoint(tmp_path / "a.ckpt")
    batch = map_tensors(
        lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, make_batch(case)
    )
    assert torch.equal(
        loaded.eval().evaluate(batch).outputs, learner.eval().evaluate(batch).outputs
    )
    assert "context.phi" not in loaded.state_dict()


# ---------------------------------------------------------------- wrong input


class Odd(nn.Module):
    """A module whose output has not the channels of the layer before it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.transposed, self.out_features = nn.Linear(3, 4), nn.Flatten(), 8

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.transposed(self.layer(inputs.view(-1, 2, 3)))
        return features


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_context": 0}, r"num_context is 0; set num_context >= 1"),
        (
            {"backbone": nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())},
            (
                r"input of a linear layer, but Sequential begins with 0 \(Conv2d\); set"
                r" film_after to one of its"
            ),
        ),
        ({"backbone": Pixels(4)}, r"but Pixels begins with no layer \(Pixels\); set film_after"),
        (
            {"film_after": "layer"},
            (
                r"film_after is 'layer', but the modules of the backbone are layers.0, layers.1,"
                r" .*; name one of them"
            ),
        ),
        ({"film_after": ""}, r"film_after is '', but the modules of the backbone are layers.0"),
        (
            {"backbone": Conv4(1), "film_after": "blocks.2.0"},
            r"film_after is blocks.2.0, but blocks.2.1 \(BatchNorm2d\) behind it undoes any scale"
            r" and shift of"
            r" channels; set film_after to blocks.2.1 or later",
        ),
        (
            {"backbone": nn.Sequential(nn.Flatten(), nn.Linear(2, 2)), "film_after": "0"},
            r"film_after is 0, but no layer with parameters comes before it; name a later one",
        ),
    ],
)
def test_bad_arguments_are_errors(arguments: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {"backbone": MLP(1), "task": CLASSIFICATION}
    if not hasattr(backbone := arguments.get("backbone", good["backbone"]), "out_features"):
        backbone.out_features = 2
    with pytest.raises(FewshotError, match=message):
        CAVIA(**(good | arguments))


@pytest.mark.parametrize(
    ("arguments", "place"),
    [
        ({}, "blocks.2.2"),
        ({"downsample": "stride"}, "blocks.2.1"),
        ({"norm": "none"}, "blocks.2.1"),
        ({"pooled_blocks": 2}, "blocks.2.1"),
    ],
)
def test_the_place_of_a_backbone_is_before_the_third_relu(
    arguments: dict[str, Any], place: str
) -> None:
    learner = CAVIA(Conv4(1, width=8, **arguments), task=CLASSIFICATION)
    assert learner.enters == place
    number = int(place.rpartition(".")[2])
    assert isinstance(learner.backbone.get_submodule(f"blocks.2.{number + 1}"), nn.ReLU)
    given = CAVIA(Conv4(1, width=8, **arguments), task=CLASSIFICATION, film_after=place)
    assert given.enters == learner.enters


def test_an_output_of_other_channels_is_an_error() -> None:
    learner = CAVIA(Odd(), task=CLASSIFICATION, film_after="transposed")
    support = Examples(torch.randn(3, 6), torch.arange(3))
    with pytest.raises(
        FewshotError, match=r"film_after names a Flatten whose output is not \(n, 4, ...\); name"
    ):
        learner.adapt(support)
    # a layer over positions takes the context at each of them
    CAVIA(Odd(), task=CLASSIFICATION).adapt(support)


class Leftover(MLP):
    """An MLP whose first layer does not run."""

    def __init__(self) -> None:
        super().__init__(2 * 16 * 16, (5,))
        self.layers = nn.Sequential(nn.Linear(2, 2), *self.layers)

    def forward(self, inputs: Any) -> Tensor:
        features: Tensor = self.layers[1:](inputs.flatten(1))
        return features


def test_the_context_of_a_layer_that_does_not_run_is_an_error() -> None:
    learner = CAVIA(Leftover(), task=CLASSIFICATION).double()
    with pytest.raises(
        FewshotError, match=r"^context.phi get no gradient: the network does not use them"
    ):
        list(learner.run(make_batch("concat"), training=True))
