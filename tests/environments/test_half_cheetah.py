"""The half-cheetah against MuJoCo itself, stepped one by one."""

import time

import numpy as np
import pytest
import torch

from fewshot.datamodules import HalfCheetahDataModule
from fewshot.environments import make_environment
from fewshot.environments.bandit_policies import RandomActor
from fewshot.environments.noise import Noise
from fewshot.environments.play import play
from fewshot.errors import FewshotError

mujoco = pytest.importorskip("mujoco")
pytest.importorskip("gymnasium")


def test_steps_are_mujocos_and_rewards_those_of_the_paper() -> None:
    from fewshot.environments.half_cheetah import _simulator

    for kind, fact in (("direction", -1.0), ("velocity", 1.5)):
        environment = make_environment({"kind": f"half_cheetah_{kind}", "horizon": 6})
        facts = torch.full((2, 1), fact, dtype=torch.float64)
        trials = play(environment, RandomActor(environment), facts, Noise(torch.arange(2)))
        model, _ = _simulator()
        assert (model.nq, model.nv, model.nu, model.opt.timestep) == (9, 9, 6, 0.01)
        for i in range(2):
            data = mujoco.MjData(model)
            first = trials.observations[i, 0].numpy()
            x = first[17]
            data.qpos[:], data.qvel[:] = np.r_[x, first[:8]], first[8:17]
            for t in range(6):
                seen, action = trials.observations[i, t].numpy(), trials.actions[i, t].numpy()
                np.testing.assert_allclose(seen[:17], np.r_[data.qpos[1:], data.qvel], atol=1e-9)
                mujoco.mj_kinematics(model, data)
                np.testing.assert_allclose(seen[17:], data.body("torso").xpos, atol=1e-9)
                before = data.qpos[0]
                data.qacc_warmstart[:] = 0
                data.ctrl[:] = action
                mujoco.mj_step(model, data, 5)
                v = (data.qpos[0] - before) / 0.05
                cost = 0.05 * (action**2).sum()
                reward = fact * v - cost if kind == "direction" else -abs(v - fact) - cost
                assert trials.rewards[i, t].item() == pytest.approx(reward, abs=1e-9)
        assert trials.mask.all()


def test_it_begins_as_gymnasiums_does_and_tasks_are_the_papers() -> None:
    environment = make_environment({"kind": "half_cheetah_velocity", "horizon": 1})
    facts = torch.zeros(4000, 1)
    seen = play(environment, RandomActor(environment), facts, Noise(torch.arange(4000)))
    places, speeds = seen.observations[:, 0, :8], seen.observations[:, 0, 8:17]
    assert places.abs().max() <= 0.1
    assert places.std().item() == pytest.approx(0.2 / 12**0.5, rel=0.03)
    assert speeds.std().item() == pytest.approx(0.1, rel=0.03)
    rng = np.random.default_rng(0)
    goals = np.concatenate([environment.draw(rng) for _ in range(200)])
    assert 0 <= goals.min() < 0.1
    assert 1.9 < goals.max() <= 2
    direction = HalfCheetahDataModule(shot=2, queries=2).place
    assert {direction.draw(rng).item() for _ in range(20)} == {-1.0, 1.0}


def test_without_mujoco_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mujoco", None)
    with pytest.raises(
        FewshotError, match=r"mujoco is not installed; pip install 'fewshot-lightning\[cont"
    ):
        HalfCheetahDataModule()


@pytest.mark.slow
def test_rollouts_have_twenty_thousand_steps_a_second() -> None:
    environment = make_environment({"kind": "half_cheetah_direction"})
    facts, seeds = torch.ones(800, 1), torch.arange(800)
    began = time.process_time()
    play(environment, RandomActor(environment), facts, Noise(seeds))
    assert 80_000 / (time.process_time() - began) >= 20_000
