"""The attacks against closed forms on linear models, the evaluation under attack by hand."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones import Conv4
from fewshot.engine.episode_map import Parallel
from fewshot.episodes.types import Episode, Examples, episode
from fewshot.errors import FewshotError
from fewshot.hyperparameters import build, describe
from fewshot.learners import ANIL, MAML, OptimizationLearner
from fewshot.learners.base import BatchNormPolicy
from fewshot.learners.optimization.attacks import FGSM, PGD, Attack

WAY, QUERIES, EPISODES = 3, 4, 2
SLOPE = torch.tensor([1.5, -2.0, 0.0, 0.5], dtype=torch.float64)


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def linear(inputs: Tensor) -> Tensor:
    return (inputs @ SLOPE).sum()


def curved(inputs: Tensor) -> Tensor:
    """A loss with a maximum inside of the unit cube, at 0.55."""
    return -(inputs - 0.55).square().sum()


# ---------------------------------------------------------------- the attacks


def test_fgsm_on_a_linear_loss_is_its_largest_value_in_the_ball() -> None:
    inputs = torch.rand(5, 4, dtype=torch.float64)
    attacked = FGSM(epsilon=0.2)(linear, inputs)
    assert torch.equal(attacked, (inputs + 0.2 * SLOPE.sign()).clamp(0, 1))
    unbounded = FGSM(epsilon=0.2, low=-float("inf"), high=float("inf"))(linear, inputs)
    assert (linear(unbounded) - linear(inputs)).item() == pytest.approx(
        5 * 0.2 * SLOPE.abs().sum().item()
    )
    ball = inputs + 0.2 * (2 * torch.rand(1000, 5, 4, dtype=torch.float64) - 1)
    assert (ball @ SLOPE).sum(-1).max() < linear(unbounded)


@pytest.mark.parametrize("random_start", [False, True])
def test_pgd_finds_the_largest_value_in_ball_and_range(random_start: bool) -> None:
    inputs = torch.rand(5, 4, dtype=torch.float64)
    on_linear = PGD(0.2, 0.05, 8, random_start)(linear, inputs)  # 8 steps of 0.05 cross the ball
    corner = (inputs + 0.2 * SLOPE.sign()).clamp(0, 1)
    torch.testing.assert_close(on_linear[:, SLOPE != 0], corner[:, SLOPE != 0], rtol=0, atol=1e-12)
    best = torch.full_like(inputs, 0.55).clamp(inputs - 0.2, inputs + 0.2)
    on_curved = PGD(0.2, 0.01, 41, random_start)(curved, inputs)
    assert (on_curved - best).abs().max() < 0.01 + 1e-12  # it steps to and fro over the maximum
    assert curved(on_curved) > curved(FGSM(0.2)(curved, inputs))


@pytest.mark.parametrize(
    "attack", [FGSM(0.3), PGD(0.3, 0.2, 3), PGD(0.3, 1.0, 2, random_start=False)], ids=describe
)
def test_it_stays_in_the_ball_and_the_range_and_raises_the_loss(attack: Attack) -> None:
    network = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs, targets = torch.rand(20, 4, dtype=torch.float64), torch.arange(20) % 3

    def loss(x: Tensor) -> Tensor:
        return F.cross_entropy(network(x), targets)

    attacked = attack(loss, inputs)
    assert (attacked - inputs).abs().max() <= 0.3 + 1e-12
    assert attacked.min() >= 0
    assert attacked.max() <= 1
    assert (loss(attacked) - loss(inputs)).item() > 0.05
    assert not attacked.requires_grad


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, 0.04, 3)], ids=["FGSM", "PGD"])
def test_without_gradients_and_under_vmap_it_is_the_same(attack: Attack) -> None:
    inputs = torch.rand(3, 5, 4, dtype=torch.float64)
    slopes = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def one(inputs: Tensor, slope: Tensor) -> Tensor:
        return attack(lambda x: (x @ slope).square().sum(), inputs, seed=3)

    expected = torch.stack([one(i, s) for i, s in zip(inputs, slopes, strict=True)])
    assert not expected.requires_grad
    with torch.no_grad():
        assert torch.equal(one(inputs[0], slopes[0]), expected[0])
    assert torch.equal(torch.func.vmap(one, randomness="different")(inputs, slopes), expected)


def test_the_random_start_is_new_each_time_unless_it_is_seeded() -> None:
    inputs = torch.full((6, 4), 0.5, dtype=torch.float64)
    flat = lambda x: 0 * x.sum()  # noqa: E731  # no slope: what comes out is the start
    starts = [PGD(0.1)(flat, inputs, seed) for seed in (None, None, 0, 0, 1)]
    differ = [not torch.equal(one, other) for one, other in pairwise(starts)]
    assert differ == [True, True, False, True]
    vmapped = torch.func.vmap(lambda x: PGD(0.1)(flat, x), randomness="different")(inputs[:, None])
    assert len(set(vmapped.flatten().tolist())) == 24
    spread = (torch.stack(starts) - 0.5) / 0.1
    assert spread.abs().max() <= 1
    assert spread.std().item() == pytest.approx(3**-0.5, rel=0.15)  # uniform


def test_an_attack_goes_through_a_checkpoint_as_plain_values() -> None:
    held = describe(PGD(0.3, steps=4, high=2.0))
    assert held == {
        "class_path": "fewshot.PGD",
        "init_args": {
            "epsilon": 0.3,
            "step_size": 0.025,
            "steps": 4,
            "random_start": True,
            "low": 0.0,
            "high": 2.0,
        },
    }
    assert vars(build(held, Attack, "attack")) == vars(PGD(0.3, steps=4, high=2.0))
    with pytest.raises(
        FewshotError, match=r"attack fewshot.backbones.Conv4 is not a Attack; pass one that is"
    ):
        build({"class_path": "fewshot.backbones.Conv4", "init_args": {}}, Attack, "attack")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FGSM(0.0), r"epsilon is 0.0; set epsilon > 0"),
        (lambda: PGD(epsilon=-1.0), r"epsilon is -1.0; set epsilon > 0"),
        (lambda: FGSM(low=1.0), r"low is 1.0 and high is 1.0; set low < high"),
        (
            lambda: PGD(step_size=0.0),
            r"step_size is 0.0; set step_size > 0",
        ),
        (lambda: PGD(steps=0), r"steps is 0; set steps >= 1"),
    ],
)
def test_bad_arguments_are_errors(make: Callable[[], Attack], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        make()


# ---------------------------------------------------------------- evaluation under attack


def images(a_class: int) -> Examples:
    inputs = torch.rand(EPISODES, WAY * a_class, 1, 16, 16, dtype=torch.float64)
    return Examples(inputs, torch.arange(WAY).repeat_interleave(a_class).expand(EPISODES, -1))


def learner_of(cls: type[OptimizationLearner], **kwargs: Any) -> OptimizationLearner:
    torch.manual_seed(1)
    task = {"kind": "classification", "way": WAY}
    return cls(Conv4(1, 16, width=4), task=task, inner_steps=2, inner_lr=0.3, **kwargs).double()


@pytest.mark.parametrize("attack", [FGSM(0.05), PGD(0.05, 0.02, 3)], ids=["FGSM", "PGD"])
@pytest.mark.parametrize("policy", ["transductive", "inductive"])
@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("cls", [MAML, ANIL])
def test_evaluation_attacks_the_queries_through_the_adapted_weights(
    cls: type[OptimizationLearner], parallel: Parallel, policy: BatchNormPolicy, attack: FGSM | PGD
) -> None:
    batch = Episode(images(2), images(QUERIES))
    learner = learner_of(cls, attack=attack, batchnorm=policy, episode_parallel=parallel)
    with torch.inference_mode():
        outcome = learner.evaluate(batch)
    assert {"loss_adversarial", "accuracy_adversarial"} < set(outcome.metrics)
    for i in range(EPISODES):
        support, query = episode(batch, i)
        adapted = learner.adapt(support)
        assert isinstance(query.inputs, Tensor)

        def loss_of(x: Tensor, adapted: Any = adapted, targets: Tensor = query.targets) -> Tensor:
            return F.cross_entropy(learner.predict(adapted, x), targets)

        x = by_hand(attack, loss_of, query.inputs)
        outputs = learner.predict(adapted, x)
        loss = F.cross_entropy(outputs, query.targets)
        accuracy = (outputs.argmax(-1) == query.targets).float().mean()
        torch.testing.assert_close(outcome.metrics["loss_adversarial"][i], loss, rtol=1e-9, atol=0)
        assert outcome.metrics["accuracy_adversarial"][i] == accuracy
        assert loss > outcome.loss[i] + 0.1
    unattacked = learner_of(cls, batchnorm=policy, episode_parallel=parallel).evaluate(batch)
    assert torch.equal(unattacked.outputs, outcome.outputs)
    assert not any("adversarial" in name for name in unattacked.metrics)


def by_hand(attack: FGSM | PGD, loss: Callable[[Tensor], Tensor], inputs: Tensor) -> Tensor:
    """FGSM and PGD by `torch.autograd.grad`, from the start that evaluation takes."""

    def sign(x: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf), leaf)
        return slope.sign()

    if isinstance(attack, PGD):
        noise = attack(lambda x: 0 * x.sum(), torch.full_like(inputs, 0.5), seed=0) - 0.5
        x = (inputs + noise).clamp(0, 1)
        for _ in range(attack.steps):
            x = x + attack.step_size * sign(x)
            x = torch.minimum(
                torch.maximum(x, inputs - attack.epsilon), inputs + attack.epsilon
            ).clamp(0, 1)
        return x
    return (inputs + attack.epsilon * sign(inputs)).clamp(0, 1)


class Flat(nn.Module):
    """No network: the pixels are the features."""

    out_features = 2

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_on_a_linear_model_the_accuracy_under_attack_is_the_share_of_wide_margins() -> None:
    # z_y - z_other falls by epsilon * |w_y - w_other|_1 under the worst change, which FGSM finds
    # where f is linear.
    centres = torch.tensor([[-0.4, 0.0], [0.4, 0.0]], dtype=torch.float64)

    def points(a_class: int) -> Examples:
        targets = torch.arange(2).repeat_interleave(a_class)
        return Examples(
            (centres[targets] + 0.1 * torch.randn(2 * a_class, 2).double())[None], targets[None]
        )

    batch = Episode(points(5), points(50))
    support, query = episode(batch, 0)
    accuracies = []
    for epsilon in (0.2, 0.35, 0.45, 0.8):
        torch.manual_seed(0)
        attack = FGSM(epsilon, low=-float("inf"), high=float("inf"))
        task = {"kind": "classification", "way": 2}
        learner = MAML(Flat(), task=task, inner_lr=1.0, inner_steps=40, attack=attack).double()
        outcome = learner.evaluate(batch)
        weight = learner.adapt(support).weights["head.weight"]
        signed = outcome.outputs[0].diff(dim=-1)[:, 0] * (2 * query.targets - 1)
        expected = (signed > epsilon * (weight[1] - weight[0]).abs().sum()).float().mean()
        assert outcome.metrics["accuracy"].item() == 1.0
        assert outcome.metrics["accuracy_adversarial"].item() == pytest.approx(expected.item())
        accuracies.append(expected.item())
    assert accuracies[0] > accuracies[1] > accuracies[2] > accuracies[3] == 0.0


def test_the_attack_is_one_of_the_facts_beside_the_results() -> None:
    assert learner_of(MAML, attack=FGSM(0.05)).facts() == {
        "attack": "FGSM(epsilon=0.05, low=0.0, high=1.0)"
    }
    assert learner_of(MAML).facts() == {}


def test_training_is_untouched_and_the_checkpoint_holds_the_attack(tmp_path: Path) -> None:
    batch = Episode(images(2), images(QUERIES))
    one, other = learner_of(MAML, attack=PGD(0.2)), learner_of(MAML)
    losses = [
        torch.cat([o.loss for o in learner.run(batch, training=True)]) for learner in (one, other)
    ]
    assert torch.equal(*losses)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    for learner, name in ((one, "attacked.ckpt"), (other, "plain.ckpt")):
        trainer.strategy.connect(learner)
        trainer.save_checkpoint(tmp_path / name)
    loaded = MAML.load_from_checkpoint(tmp_path / "attacked.ckpt")
    assert describe(loaded.attack) == describe(PGD(0.2))
    assert MAML.load_from_checkpoint(tmp_path / "plain.ckpt").attack is None
    given = MAML.load_from_checkpoint(tmp_path / "plain.ckpt", attack=FGSM(0.2))
    assert describe(given.attack) == describe(FGSM(0.2))


def test_what_cannot_be_attacked_is_refused() -> None:
    x = torch.rand(1, 6, 1, 16, 16) * 2
    batch = Episode(*[Examples(x, torch.arange(3).repeat_interleave(2)[None])] * 2)
    for training in (True, False):
        with pytest.raises(
            FewshotError,
            match=r"the inputs are from .* to [12].*, but the valid range of FGSM is from 0",
        ):
            list(learner_of(MAML, attack=FGSM()).float().run(batch, training))
    with pytest.raises(
        FewshotError,
        match=r"PGD changes floats, but the inputs are torch.uint8; leave out `attack`",
    ):
        PGD().check(x.byte())
    text = {
        "tokens": torch.ones(1, 6, 8, dtype=torch.long),
        "mask": torch.ones(1, 6, 8, dtype=torch.bool),
    }
    with pytest.raises(
        FewshotError, match=r"FGSM changes the values of one tensor, but .* a dict of tokens, mask;"
    ):
        FGSM().check(text)
