"""A trained learner of control plays in an environment of one's own, adapts, and says how to act."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fewshot
from fewshot import CAVIA, FOMAML, MAML, MLP, RL2, FewshotError, MetaSGD, MultiTask, Pixels, Reptile
from fewshot.datamodules import GymnasiumDataModule, NavigationDataModule
from fewshot.deployment.predictor import TrainedLearner

gymnasium = pytest.importorskip("gymnasium")


class Doors(gymnasium.Env):  # type: ignore[misc, name-defined]
    """Behind one of two doors is a reward; its reset takes no options. It keeps what was done."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space: Any = gymnasium.spaces.Discrete(2, start=3)

    def __init__(self, right: int = 3) -> None:
        self.right, self.taken, self.seeds = right, list[int](), list[int | None]()

    def reset(self, *, seed: int | None = None) -> Any:
        self.seeds.append(seed)
        return np.ones(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.taken.append(action)
        return np.ones(1, np.float32), float(action == self.right), True, False, {}


class ToldDoors(Doors):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.right = options["right"]
        return super().reset(seed=seed)


class Aim(Doors):
    """The reward is minus the distance to a number."""

    action_space = gymnasium.spaces.Box(-1, 1, (1, 1), np.float32)
    observation_space = gymnasium.spaces.Dict({"a": Doors.observation_space})

    def reset(self, *, seed: int | None = None) -> Any:
        return {"a": np.ones(1, np.float32)}, {}

    def step(self, action: Any) -> Any:
        assert action in self.action_space
        return self.reset()[0], -abs(float(action[0, 0]) - self.right), False, False, {}


class Broken(Doors):
    def step(self, action: Any) -> Any:
        return np.ones(1, np.float32), float("nan"), True, False, {}


def benchmark(env: str = "ToldDoors", horizon: int = 1, **more: Any) -> GymnasiumDataModule:
    facts = {"right": {"choice": [3, 4]}}
    return GymnasiumDataModule(f"{__name__}.{env}", facts, horizon=horizon, **more)


def trained(cls: Any = MAML, **more: Any) -> TrainedLearner:
    torch.manual_seed(0)
    rates: dict[Any, dict[str, Any]] = {
        MetaSGD: {"initial_rates": (10.0, 10.0)},
        Reptile: {"inner_lr": 0.1},  # Adam's
    }
    rate = rates.get(cls, {"inner_lr": 10.0})
    network = MLP(1, (20,), activation="tanh")
    return TrainedLearner(cls(network, task=benchmark().task, **(rate | more)).double())


@pytest.mark.parametrize("cls", [MAML, FOMAML, MetaSGD, CAVIA, Reptile, MultiTask])
def test_it_adapts_to_the_environment_that_is_given(cls: Any) -> None:
    for right in (3, 4):
        env = Doors(right)
        policy = trained(cls).adapt(env, trials=30)
        assert len(env.taken) == (50 if cls is Reptile else 30)  # five steps on ten trials each
        assert policy.predict(np.ones(1, np.float32)) == right
        drawn = {policy.predict(np.ones(1, np.float32), sample=True) for _ in range(50)}
        assert right in drawn <= {3, 4}


def test_an_inner_step_is_the_policy_gradient_of_what_was_played() -> None:
    env, learner = Doors(), trained(inner_lr=0.5)
    policy = learner.adapt(env, trials=12, seed=7)
    module = policy.module
    rewards = torch.tensor([float(a == 3) for a in env.taken]).double()
    assert 0 < rewards.sum() < 12  # both were tried
    advantage = (rewards - rewards.mean()) / rewards.std(correction=0)
    logits = module.network(torch.ones(12, 1).double())
    taken = torch.tensor(env.taken)[:, None] - 3
    loss = -(logits.log_softmax(-1).gather(1, taken)[:, 0] * advantage).mean()
    names, weights = zip(*module.network.named_parameters(), strict=True)
    for name, weight, slope in zip(names, weights, torch.autograd.grad(loss, weights), strict=True):
        found = policy.adapted.weights[name]
        torch.testing.assert_close(found, weight - 0.5 * slope, rtol=0, atol=1e-6)
    again = Doors()
    learner.adapt(again, trials=12, seed=7)
    assert (again.taken, again.seeds) == (env.taken, env.seeds)
    assert len(set(env.seeds)) == 12


def test_before_each_inner_step_the_policy_of_that_step_plays() -> None:
    env = Doors()
    trained(inner_steps=3).adapt(env, trials=40)
    first, *_, last = np.array(env.taken).reshape(3, 40)
    assert (first == 3).mean() < (last == 3).mean()


def test_real_values_are_within_the_bounds_and_shaped_as_the_environment_has_them() -> None:
    torch.manual_seed(0)
    data = NavigationDataModule(horizon=4)
    task = {**data.task, "environment": benchmark("ToldAim", 4).environment}
    learner = TrainedLearner(MAML(MLP(1, (5,)), task=task, inner_lr=0.1))
    policy = learner.adapt(Aim(1), trials=5)
    for sample in (False, True):
        action = policy.predict({"a": np.ones(1, np.float32)}, sample=sample)
        assert action in policy.place.given.action_space
    outputs = policy.module.predict(policy.adapted, torch.ones(1, 1))
    mean = policy.predict({"a": np.ones(1, np.float32)})
    np.testing.assert_allclose(mean[0, 0], outputs[0, 0].clamp(-1, 1).item(), rtol=1e-6)


class ToldAim(Aim):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


def test_a_checkpoint_is_adapted_alike(tmp_path: Path) -> None:
    trainer = fewshot.Trainer(
        max_epochs=1, default_root_dir=tmp_path, accelerator="cpu", logger=False
    )
    data = benchmark(train_episodes=4, val_episodes=2, meta_batch_size=2)
    learner = MAML(MLP(1, (5,)), inner_lr=10.0, task=data.task)
    trainer.fit(learner, data)
    trainer.save_checkpoint(tmp_path / "doors.ckpt")
    policy = fewshot.load(tmp_path / "doors.ckpt", "cpu").adapt(Doors(4), trials=30)
    assert policy.predict(np.ones(1)) == 4
    wanted = TrainedLearner(learner).adapt(Doors(4), trials=30).adapted.weights
    for name, value in policy.adapted.weights.items():
        torch.testing.assert_close(value, wanted[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("given", "error"),
    [
        (
            Aim(),
            "Aim has observations of 1 values and Box(1) actions, and this MAML was trained on",
        ),
        (
            "support",
            "this MAML acts, and 'support' is no environment; give fewshot.load(...).adapt",
        ),
        (Broken(), "the reward of step 0 in Broken is nan; have it give finite rewards"),
    ],
)
def test_what_it_cannot_act_in_is_told_in_a_line(given: Any, error: str) -> None:
    with pytest.raises(FewshotError, match=re.escape(error)) as caught:
        trained().adapt(given)
    assert "\n" not in str(caught.value)


def test_observations_of_another_kind_are_told_in_a_line() -> None:
    policy: Any = trained().adapt(Doors())
    for wrong in (np.ones(2), [np.nan], "a"):
        with pytest.raises(FewshotError, match=r"is none of Box.* with finite values; give one"):
            policy.predict(wrong)


def test_who_does_not_act_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    names = fewshot.PrototypicalNetwork(MLP(1), task={"kind": "classification", "way": 2})
    with pytest.raises(FewshotError, match="trained on classification and cannot act in an env"):
        TrainedLearner(names).adapt(Doors())
    with pytest.raises(FewshotError, match="this RL2 learns to act within a trial"):
        TrainedLearner(RL2(Pixels(1), task=benchmark().task, hidden=4))
    with pytest.raises(FewshotError, match="trials is 0; give 1 or more"):
        trained().adapt(Doors(), trials=0)
    data = NavigationDataModule()
    learner = TrainedLearner(MAML(MLP(2, (5,)), task=data.task))
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(FewshotError, match="gymnasium is not installed; pip install 'fewshot"):
        learner.adapt(Doors())
