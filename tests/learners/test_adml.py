"""ADML in float64: its meta-gradient against autograd through both arms, finite differences."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import MLP, Conv4
from fewshot.engine.compiling.compiler import Compiler
from fewshot.engine.episode_map import Parallel
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.hyperparameters import describe
from fewshot.learners import ADML, MAML
from fewshot.learners.optimization.attacks import FGSM, PGD

WAY, SHOT, QUERIES, EPISODES, LR, STEPS, EPSILON = 3, 2, 2, 2, 0.3, 2, 0.07
PGD_STEPS, PGD_STEP = 3, 0.03
WAYS: tuple[Parallel, ...] = ("loop", "vmap")
Weights = dict[str, Tensor]


@pytest.fixture
def batch() -> Episode:
    """Random images (2, 16, 16) with labels."""
    torch.manual_seed(0)

    def examples(a_class: int) -> Examples:
        images = torch.rand(EPISODES, WAY * a_class, 2, 16, 16, dtype=torch.float64)
        return Examples(images, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))

    return Episode(examples(SHOT), examples(QUERIES))


def adml(**kwargs: Any) -> ADML:
    torch.manual_seed(1)
    arguments = {"attack": FGSM(EPSILON), "inner_lr": LR, "inner_steps": STEPS, **kwargs}
    learner = ADML(
        Conv4(2, 16, width=4), task={"kind": "classification", "way": WAY}, **arguments
    ).double()
    for name, parameter in learner.named_parameters():
        if ".1." in name:  # scales and shifts that matter
            nn.init.normal_(parameter, mean=1.0 if name.endswith("weight") else 0.0, std=0.3)
    return learner


def meta(learner: ADML, batch: Episode) -> tuple[Tensor, Tensor]:
    """The mean training loss and the meta-gradient."""
    learner.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for outcome in learner.run(batch, training=True):
        torch.autograd.backward(outcome.loss.sum() / EPISODES)
        total += outcome.loss.detach().sum() / EPISODES
    return total, torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])


def distance(one: Tensor, two: Tensor) -> float:
    return ((one - two).abs().max() / two.abs().max()).item()


# ---------------------------------------------------------------- the reference: no nn.Module, no t


def network(w: Weights, x: Tensor) -> Tensor:
    """Conv4 and the linear head, written out."""
    for i in range(4):
        x = F.conv2d(x, w[f"backbone.blocks.{i}.0.weight"], padding=1)
        mean, variance = (
            x.mean([0, 2, 3], keepdim=True),
            x.var([0, 2, 3], correction=0, keepdim=True),
        )
        scale, shift = (
            w[f"backbone.blocks.{i}.1.{name}"].view(1, -1, 1, 1) for name in ("weight", "bias")
        )
        x = F.max_pool2d(((x - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(min=0), 2)
    return x.flatten(1) @ w["head.weight"].T + w["head.bias"]


def loss(w: Weights, examples: Examples) -> Tensor:
    assert isinstance(examples.inputs, Tensor)
    return F.cross_entropy(network(w, examples.inputs), examples.targets)


def attacked(w: Weights, examples: Examples, steps: int, step: float) -> Examples:
    """FGSM (one step of epsilon), or PGD from the examples themselves."""
    clean = examples.inputs
    assert isinstance(clean, Tensor)
    x = clean
    for _ in range(steps):
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(w, Examples(leaf, examples.targets)), leaf)
        x = torch.minimum(
            torch.maximum(x + step * slope.sign(), clean - EPSILON), clean + EPSILON
        ).clamp(0, 1)
    return Examples(x.detach(), examples.targets)


def descend(w: Weights, support: Examples, first_order: bool, adapts: str) -> Weights:
    for _ in range(STEPS):
        names = [name for name in w if name.startswith(adapts)]
        slopes = torch.autograd.grad(
            loss(w, support), [w[name] for name in names], create_graph=True
        )
        slopes = tuple(slope.detach() for slope in slopes) if first_order else slopes
        w = w | {name: w[name] - LR * slope for name, slope in zip(names, slopes, strict=True)}
    return w


def reference(
    learner: ADML,
    batch: Episode,
    first_order: bool = False,
    adapts: str = "",
    steps: int = 1,
    step: float = EPSILON,
    crossed: bool = True,
) -> tuple[Tensor, Tensor]:
    theta = {name: p.detach().clone().requires_grad_() for name, p in learner.named_parameters()}
    total = torch.zeros((), dtype=torch.float64)
    for i in range(EPISODES):
        clean = episode(batch, i)
        adversarial = Episode(*(attacked(theta, part, steps, step) for part in clean))
        arms = [descend(theta, part.support, first_order, adapts) for part in (clean, adversarial)]
        queries = [adversarial.query, clean.query] if crossed else [clean.query, adversarial.query]
        total = (
            total
            + sum(loss(w, query) for w, query in zip(arms, queries, strict=True)) / 2 / EPISODES
        )
    slopes = torch.autograd.grad(total, list(theta.values()))
    return total.detach(), torch.cat([slope.flatten() for slope in slopes])


CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "FGSM": ({}, {}),
    "PGD": (
        {"attack": PGD(EPSILON, PGD_STEP, PGD_STEPS, random_start=False)},
        {"steps": PGD_STEPS, "step": PGD_STEP},
    ),
    "first order": ({"first_order": True}, {"first_order": True}),
    "head": ({"adapt": "head"}, {"adapts": "head"}),
}


@pytest.mark.parametrize("parallel", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_the_meta_gradient_is_that_of_plain_autograd(
    case: str, parallel: Parallel, batch: Episode
) -> None:
    arguments, how = CASES[case]
    learner = adml(episode_parallel=parallel, **arguments)
    value, gradient = meta(learner, batch)
    expected_value, expected = reference(learner, batch, **how)
    assert distance(value, expected_value) < 1e-12
    assert distance(gradient, expected) < 1e-9
    # so that the test can tell
    assert distance(reference(learner, batch, **how, crossed=False)[1], expected) > 1e-3
    if how:
        assert distance(reference(learner, batch)[1], expected) > 1e-3


@pytest.mark.parametrize("parallel", WAYS)
def test_the_meta_gradient_is_that_of_finite_differences(
    parallel: Parallel, batch: Episode
) -> None:
    learner = adml(episode_parallel=parallel)
    _, gradient = meta(learner, batch)
    start = [p.detach().clone() for p in learner.parameters()]

    def value(direction: list[Tensor], step: float) -> Tensor:
        with torch.no_grad():
            for parameter, place, change in zip(
                learner.parameters(), start, direction, strict=True
            ):
                parameter.copy_(place + step * change)
            return torch.cat([outcome.loss for outcome in learner.run(batch, training=True)]).mean()

    # The sign of a gradient is constant within a difference that small: the attacked examples are
    # constants here too.
    for _ in range(2):
        direction = [torch.randn_like(place) for place in start]
        length = torch.cat([d.flatten() for d in direction]).norm()
        direction = [d / length for d in direction]
        slope = (value(direction, 1e-6) - value(direction, -1e-6)) / 2e-6
        expected = gradient @ torch.cat([d.flatten() for d in direction])
        assert slope.item() == pytest.approx(expected.item(), rel=1e-5)


def test_compiled_it_is_the_same(batch: Episode) -> None:
    torch.manual_seed(1)
    learner = ADML(
        MLP(2 * 16 * 16, (3,)),
        task={"kind": "classification", "way": WAY},
        inner_lr=LR,
        episode_parallel="loop",
    ).double()
    _, expected = meta(learner, batch)
    learner.compiler = Compiler("aot_eager")
    assert distance(meta(learner, batch)[1], expected) < 1e-9


# ---------------------------------------------------------------- metrics, evaluation, checkpoints


@pytest.mark.parametrize("parallel", WAYS)
def test_training_reports_each_arm_on_the_other_queries(parallel: Parallel, batch: Episode) -> None:
    learner = adml(episode_parallel=parallel, episodes_per_chunk=EPISODES)
    (outcome,) = learner.run(batch, training=True)
    theta = {name: p.detach().clone().requires_grad_() for name, p in learner.named_parameters()}
    for i in range(EPISODES):
        clean = episode(batch, i)
        adversarial = Episode(*(attacked(theta, part, 1, EPSILON) for part in clean))
        accuracies = []
        for support, query in (
            (adversarial.support, clean.query),
            (clean.support, adversarial.query),
        ):
            outputs = network(descend(theta, support, True, ""), query.inputs)  # type: ignore[arg-type]
            accuracies.append((outputs.argmax(-1) == query.targets).float().mean().item())
        found = [outcome.metrics[name][i].item() for name in ("accuracy", "accuracy_adversarial")]
        assert found == pytest.approx(accuracies)


def test_evaluation_is_that_of_maml_under_the_same_attack(batch: Episode) -> None:
    learner = adml(eval_inner_steps=3)
    plain = MAML(
        Conv4(2, 16, width=4), task={"kind": "classification", "way": WAY}, inner_lr=LR, inner_steps=3,
        attack=FGSM(EPSILON),
    ).double()  # fmt: skip
    plain.load_state_dict(learner.state_dict())
    one, other = learner.evaluate(batch), plain.evaluate(batch)
    assert torch.equal(one.outputs, other.outputs)
    assert all(torch.equal(one.metrics[name], other.metrics[name]) for name in other.metrics)
    assert (one.metrics["loss_adversarial"] > one.loss).all()


def test_the_attack_is_fgsm_unless_another_is_given(tmp_path: Path) -> None:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    makes: tuple[Callable[[], ADML], ...] = (
        lambda: adml(attack=None),
        lambda: adml(attack=PGD(0.2)),
    )
    for make, expected in zip(makes, (FGSM(), PGD(0.2)), strict=True):
        learner = make()
        assert describe(learner.attack) == describe(expected)
        trainer.strategy.connect(learner)
        trainer.save_checkpoint(tmp_path / "a.ckpt")
        assert describe(ADML.load_from_checkpoint(tmp_path / "a.ckpt").attack) == describe(expected)


def test_regression_is_attacked_too_and_texts_are_refused() -> None:
    x, y = torch.rand(2, 5, 3, dtype=torch.float64), torch.rand(2, 5, 1, dtype=torch.float64)

    class Pair(nn.Linear):
        """A small network on vectors."""

        out_features = 4

    learner = ADML(Pair(3, 4), task={"kind": "regression"}).double()
    first, *_ = learner.run(Episode(Examples(x, y), Examples(x, y)), training=True)
    assert (first.metrics["mse_adversarial"] > 0).all()
    text = Examples({"tokens": torch.ones(2, 5, 3, dtype=torch.long)}, y)
    learner_of_text = ADML(Pair(3, 4), task={"kind": "regression"}, episode_parallel="loop")
    with pytest.raises(
        FewshotError,
        match=r"FGSM changes the values of one tensor, but the inputs are a dict of tokens",
    ):
        list(learner_of_text.run(Episode(text, text), training=True))
