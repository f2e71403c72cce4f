"""Environments and playing against written-out references; loop and vmap give the same trials."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot.environments import ENVIRONMENTS, make_environment
from fewshot.environments.bandit_policies import RandomActor
from fewshot.environments.base import Environment
from fewshot.environments.navigation import Navigation, SparseNavigation
from fewshot.environments.noise import Noise
from fewshot.environments.play import Moment, Trials, Uniform, play
from fewshot.environments.tabular_mdp import TabularMDP
from fewshot.environments.told_goal import ToGoal
from fewshot.errors import FewshotError


def facts_of(environment: Environment, n: int) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(np.stack([environment.draw(rng) for _ in range(n)]))


@dataclass(frozen=True)
class Always:
    """An actor of one action."""

    action: Tensor

    def __call__(self, memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
        return self.action.expand(len(moment.reward), -1), None


@pytest.mark.parametrize("kind", [kind for kind in ENVIRONMENTS if kind != "gymnasium"])
def test_trials_are_the_same_one_by_one_stacked_and_vmapped(kind: str) -> None:
    if kind.startswith("half_cheetah"):
        pytest.importorskip("mujoco", reason="needs the extra fewshot[control]")
    environment = make_environment({"kind": kind})
    facts, seeds = facts_of(environment, 6), torch.arange(6)

    def played(facts: Tensor, seeds: Tensor) -> Trials:
        return play(environment, RandomActor(environment), facts, Noise(seeds), steps=20)

    at_once = played(facts, seeds)
    assert at_once.observations.shape == (6, 20, environment.observation_size)
    assert at_once.actions.shape == (6, 20, environment.action_values)
    vmapped = torch.func.vmap(played)(facts.view(3, 2, -1), seeds.view(3, 2))
    for i in range(6):
        for one, all_, mapped in zip(
            played(facts[i : i + 1], seeds[i : i + 1]), at_once, vmapped, strict=True
        ):
            torch.testing.assert_close(one[0], all_[i], rtol=0, atol=1e-12)
            torch.testing.assert_close(one[0], mapped.flatten(0, 1)[i], rtol=0, atol=1e-12)


def test_arms_pay_what_they_promise_and_regret_is_what_the_best_pays_more() -> None:
    for kind, deviation in (("bernoulli_bandit", 0.5), ("gaussian_bandit", 1.0)):
        bandit = make_environment({"kind": kind, "arms": 2, "pulls": 5})
        facts = torch.tensor([[0.5, 0.9]], dtype=torch.float64).expand(4000, -1)
        trials = play(bandit, Always(torch.tensor([[0]])), facts, Noise(torch.arange(4000)))
        assert trials.rewards.mean().item() == pytest.approx(0.5, abs=0.03)
        assert trials.rewards.std().item() == pytest.approx(deviation, abs=0.03)
        assert torch.unique(trials.regrets).tolist() == pytest.approx([0.4])
        assert trials.mask.min() == 1


def best_value(place: TabularMDP, facts: Tensor, state: int, left: int) -> float:
    """What the best policy expects of `left` steps: all its choices written out."""
    return max(value_of(place, facts, state, action, left) for action in range(place.actions))


def value_of(place: TabularMDP, facts: Tensor, state: int, action: int, left: int) -> float:
    """The same where the first action is given."""
    size = place.states
    chances = facts[: size * size * place.actions].view(size, place.actions, size)[state, action]
    mean = facts[size * size * place.actions :].view(size, place.actions)[state, action].item()
    if left == 1:
        return mean
    return mean + sum(
        chances[following].item() * best_value(place, facts, following, left - 1)
        for following in range(size)
    )


def test_an_mdps_regret_is_what_the_best_policy_would_still_have_expected() -> None:
    place = TabularMDP(states=3, actions=2, horizon=3, episodes=2)
    facts = facts_of(place, 4)
    trials = play(place, RandomActor(place), facts, Noise(torch.arange(4)))
    for i in range(4):
        for t in range(6):
            state, left = int(trials.observations[i, t].argmax()), 3 - t % 3
            action = int(trials.actions[i, t])
            lost = best_value(place, facts[i], state, left) - value_of(
                place, facts[i], state, action, left
            )
            assert trials.regrets[i, t].item() == pytest.approx(lost, abs=1e-12)


def test_return_and_regret_together_are_what_the_best_policy_expects() -> None:
    place = TabularMDP(states=3, actions=2, horizon=3, episodes=2)
    one = facts_of(place, 1)
    trials = play(place, RandomActor(place), one.expand(20000, -1), Noise(torch.arange(20000)))
    total = trials.rewards.sum(1) + trials.regrets.sum(1)
    error = total.std().item() / 20000**0.5
    assert total.mean().item() == pytest.approx(2 * best_value(place, one[0], 0, 3), abs=4 * error)


def test_an_mdp_follows_its_transitions_and_begins_anew() -> None:
    environment = TabularMDP(states=3, actions=2, horizon=2, episodes=3)
    facts = facts_of(environment, 1).expand(20000, -1)
    transitions, means = facts[0, :18].view(3, 2, 3), facts[0, 18:].view(3, 2)
    trials = play(environment, Always(torch.tensor([[1]])), facts, Noise(torch.arange(20000)))
    states = trials.observations.argmax(-1)
    assert (states[:, ::2] == 0).all()
    shares = torch.bincount(states[:, 3], minlength=3) / 20000
    torch.testing.assert_close(shares.double(), transitions[0, 1], atol=0.015, rtol=0)
    assert trials.rewards[:, 0].mean().item() == pytest.approx(means[0, 1].item(), abs=0.03)
    after = trials.rewards[:, 5][states[:, 5] == 2]
    assert after.mean().item() == pytest.approx(means[2, 1].item(), abs=0.06)
    assert after.std().item() == pytest.approx(1, abs=0.05)


def test_who_is_told_the_goal_walks_straight_to_it() -> None:
    environment, goal = Navigation(), torch.tensor([[0.25, -0.3]], dtype=torch.float64)
    trials = play(environment, ToGoal(environment, goal), goal, Noise(torch.tensor([0])))
    assert trials.mask.sum() == 3  # of 0.1 a coordinate
    places = [(0.1, -0.1), (0.2, -0.2), (0.25, -0.3)]
    distances = [((x - 0.25) ** 2 + (y + 0.3) ** 2) ** 0.5 for x, y in places]
    assert trials.rewards[0, :3].tolist() == pytest.approx([-d for d in distances])
    assert trials.rewards[0, 3:].abs().sum() == 0
    sparse = SparseNavigation(radius=0.2)
    trials = play(sparse, ToGoal(sparse, goal), goal, Noise(torch.tensor([0])))
    near = [max(0.0, 1 - d / 0.2) for d in distances]
    assert trials.rewards[0].sum().item() == pytest.approx(sum(near) + 97)


def test_an_unknown_environment_is_told() -> None:
    with pytest.raises(FewshotError, match="'navigatoin' is unknown; did you mean 'navigation'"):
        make_environment({"kind": "navigatoin"})
    with pytest.raises(FewshotError, match="arms is 1"):
        make_environment({"kind": "bernoulli_bandit", "arms": 1})
    with pytest.raises(FewshotError, match=r"'os\.path' is unknown"):
        make_environment({"kind": "os.path"})
