"""Gymnasium's environments: told their task by reset, the same trials one by one and vmapped."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot import MAML, MLP, RL2, FewshotError, MultiTask, Pixels
from fewshot.datamodules import GymnasiumDataModule
from fewshot.environments.bandit_policies import RandomActor
from fewshot.environments.noise import Noise
from fewshot.environments.play import Trials, play
from fewshot.episodes.types import map_tensors

gymnasium = pytest.importorskip("gymnasium")


class Walk(gymnasium.Env):  # type: ignore[misc, name-defined]
    """A step along a line with noise; the reward is minus the distance to the goal."""

    observation_space = gymnasium.spaces.Box(-9, 9, (1,), np.float64)
    action_space: Any = gymnasium.spaces.Box(-1, 1, (1,), np.float64)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.goal, self.at = options["goal"] * {"far": 2, "near": 1}[options["scale"]], np.zeros(1)
        return self.at, {}

    def step(self, action: Any) -> Any:
        self.at = self.at + action + 0.1 * self.np_random.normal(size=1)
        off = float(abs(self.at[0] - self.goal))
        return self.at, -off, off < 0.05, False, {}


class Deaf(Walk):
    def reset(self, *, seed: int | None = None) -> Any:  # type: ignore[override]
        return super().reset(seed=seed, options={"goal": 0, "scale": "near"})


class Switches(Walk):
    action_space = gymnasium.spaces.MultiBinary(3)


FACTS = {"goal": [-1, 1], "scale": {"choice": ["near", "far"]}}
HERE = f"{__name__}."


def benchmark(env: str = "Walk", **more: Any) -> GymnasiumDataModule:
    given = {"shot": 3, "queries": 3, "meta_batch_size": 3, "train_episodes": 3, "horizon": 5}
    return GymnasiumDataModule(HERE + env, FACTS, **{**given, **more})


def test_trials_are_those_of_the_environment_and_the_same_one_by_one_and_vmapped() -> None:
    environment = benchmark().place
    rng = np.random.default_rng(0)
    facts = torch.from_numpy(np.stack([environment.draw(rng) for _ in range(6)]))
    seeds = torch.arange(6)

    def played(facts: Tensor, seeds: Tensor) -> Trials:
        return play(environment, RandomActor(environment), facts, Noise(seeds))

    at_once = played(facts, seeds)
    vmapped = torch.func.vmap(played)(facts.view(3, 2, -1), seeds.view(3, 2))
    for i in range(6):
        for one, all_, mapped in zip(
            played(facts[i : i + 1], seeds[i : i + 1]), at_once, vmapped, strict=True
        ):
            torch.testing.assert_close(one[0], all_[i], rtol=0, atol=0)
            torch.testing.assert_close(one[0], mapped.flatten(0, 1)[i], rtol=0, atol=0)
        goal = facts[i, 0] * (1 + facts[i, 1])  # near, far
        off = (at_once.observations[i, 1:, 0] - goal).abs()
        torch.testing.assert_close(at_once.rewards[i, :-1], -off)
    assert set(facts[:, 1].tolist()) == {0, 1}


def test_an_episode_that_is_over_counts_no_more_and_discrete_ones_are_told_apart() -> None:
    data = GymnasiumDataModule("CartPole-v1", {"low": [-0.05, -0.01], "high": [0.01, 0.05]})
    assert (data.place.discrete, data.in_features, data.place.horizon) == (True, 4, 500)
    facts = torch.tensor([[-0.02, 0.02]]).expand(8, -1)
    trials = play(data.place, RandomActor(data.place), facts, Noise(torch.arange(8)), 60)
    lengths = trials.mask.sum(1)
    assert (lengths < 60).all()
    torch.testing.assert_close(trials.rewards.sum(1), lengths)
    assert trials.observations[:, 0].abs().max() <= 0.02


@pytest.mark.parametrize("cls", [MAML, MultiTask, RL2])
def test_learners_act_in_it_in_a_loop_and_vmapped(cls: Any) -> None:
    data = benchmark()
    batch = next(iter(data.train_dataloader())).stacked
    episodes = map_tensors(lambda t: t.double() if t.is_floating_point() else t, batch)
    found = []
    for how in ("loop", "vmap"):
        torch.manual_seed(0)
        backbone = Pixels(1) if cls is RL2 else MLP(1, (5,))
        more = {"hidden": 4} if cls is RL2 else {"episode_parallel": how, "inner_lr": 0.1}
        learner = cls(backbone, task=data.task, **more).double()
        judged = learner.evaluate(episodes)
        sum(o.loss.sum() for o in learner.run(episodes, training=True)).backward()
        slopes = {n: p.grad for n, p in learner.named_parameters() if p.grad is not None}
        assert slopes
        found.append({**judged.metrics, **slopes})
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=0, atol=1e-10, msg=key)


@pytest.mark.parametrize(
    ("env", "facts", "error"),
    [
        ("CartPole-v7", {}, r"env 'CartPole-v7' is not registered; did you mean 'CartPole-v"),
        ("NotThere-v0", {}, r"env 'NotThere-v0' is not registered; (did|give)"),
        (HERE + "Nobody", FACTS, r"has no Nobody and registers none; give the import path of a"),
        (HERE[:-1] + ":Nobody", FACTS, r"has no Nobody and registers none; give the import path"),
        ("no_module_at_all:Walk", FACTS, r"cannot be made \(No module named 'no_module_at_all'\)"),
        (HERE[:-1] + ":Deaf", FACTS, "Deaf takes no options, so that it cannot be told its task; "),
        (HERE + "Deaf", FACTS, "Deaf takes no options, so that it cannot be told its task; "),
        (HERE + "Switches", FACTS, r"Switches takes actions of MultiBinary\(3\), which no policy"),
        (HERE + "Walk", FACTS, "Walk has no limit of steps; set horizon, such as 100"),
        (HERE + "Walk", {"goal": 1}, r"facts.goal is 1; give \[low, high\], or \{choice"),
    ],
)
def test_what_cannot_be_acted_in_is_told_in_a_line(env: str, facts: Any, error: str) -> None:
    with pytest.raises(FewshotError, match=error) as caught:
        GymnasiumDataModule(env, facts)
    assert "\n" not in str(caught.value)


def test_a_module_may_register_the_id_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registers = f"import gymnasium\ngymnasium.register('Own-v0', '{HERE[:-1]}:Walk')\n"
    (tmp_path / "registers_one.py").write_text(registers)
    monkeypatch.syspath_prepend(str(tmp_path))
    gymnasium = importlib.import_module("gymnasium")
    try:
        data = GymnasiumDataModule("registers_one:Own-v0", FACTS, horizon=3)
        assert data.place.horizon == 3
    finally:
        gymnasium.registry.pop("Own-v0", None)


def test_without_gymnasium_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gymnasium", None)
    with pytest.raises(FewshotError, match="gymnasium is not installed; pip install 'fewshot"):
        benchmark()
