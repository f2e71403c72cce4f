"""Policies without training against the published table, closed forms and enumeration."""

import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from fewshot.environments import make_environment
from fewshot.environments.bandit_policies import (
    EpsilonGreedyIndex,
    RandomActor,
    ThompsonIndex,
    UCB1Index,
)
from fewshot.environments.base import Environment
from fewshot.environments.bayes_optimum import BayesPolicy
from fewshot.environments.gittins import GittinsPolicy, gittins_table
from fewshot.environments.noise import Noise
from fewshot.environments.play import Moment, play
from fewshot.environments.psrl import Model, PosteriorSampling
from fewshot.environments.tabular_mdp import TabularMDP
from fewshot.environments.told_goal import ToGoal
from fewshot.errors import FewshotError


def total(environment: Environment, actor: Any, n: int) -> tuple[float, float]:
    """The mean reward of n trials, and its 95 % interval."""
    rng = np.random.default_rng(0)
    facts = torch.from_numpy(np.stack([environment.draw(rng) for _ in range(n)])).float()
    rewards = play(environment, actor, facts, Noise(torch.arange(n))).rewards.sum(1)
    return rewards.mean().item(), 1.96 * rewards.std().item() / math.sqrt(n)


@pytest.mark.parametrize(
    ("arms", "published"), [(5, (5.0, 6.6, 6.7, 6.6, 6.6)), (10, (5.0, 6.6, 6.7, 6.6, 6.6))]
)
def test_policies_have_the_published_rewards(arms: int, published: tuple[float, ...]) -> None:
    """RL^2's table at N = 10, within 0.1 and the rounding of what is published."""
    bandit = make_environment({"kind": "bernoulli_bandit", "arms": arms, "pulls": 10})
    actors = [
        RandomActor(bandit),
        GittinsPolicy(bandit, 0.9),
        UCB1Index(bandit, 0.2),
        EpsilonGreedyIndex(bandit, 0.0),
        EpsilonGreedyIndex(bandit, 0.05),
    ]
    best, interval = total(bandit, BayesPolicy(bandit), 10000)
    for actor, expected in zip(actors, published, strict=True):
        found, _ = total(bandit, actor, 10000)
        assert found == pytest.approx(expected, abs=0.15)
        assert best >= found - interval


def test_thompson_sampling_pulls_by_the_probability_of_being_best() -> None:
    bandit = make_environment({"kind": "bernoulli_bandit", "arms": 2, "pulls": 2})
    n = 20000
    facts = torch.tensor([[0.0, 0.0]]).expand(n, -1)  # the first pull pays nothing
    trials = play(bandit, ThompsonIndex(bandit, False), facts, Noise(torch.arange(n)))
    again = (trials.actions[:, 0] == trials.actions[:, 1]).float().mean().item()
    assert again == pytest.approx(1 / 3, abs=0.015)  # P(Beta(1, 2) > U) = 1 / 3
    gaussian = make_environment({"kind": "gaussian_bandit", "arms": 2, "pulls": 10})
    plain, interval = total(gaussian, RandomActor(gaussian), 4000)
    assert total(gaussian, ThompsonIndex(gaussian, False), 4000)[0] > plain + interval


def test_the_bayes_optimum_is_the_enumerated_one() -> None:
    @cache
    def value(arms: tuple[tuple[int, int], ...], left: int) -> float:
        if not left:
            return 0.0
        found = []
        for i, (s, f) in enumerate(arms):
            p = (s + 1) / (s + f + 2)
            won, lost = list(arms), list(arms)
            won[i], lost[i] = (s + 1, f), (s, f + 1)
            found.append(
                p * (1 + value(tuple(won), left - 1)) + (1 - p) * value(tuple(lost), left - 1)
            )
        return max(found)

    start, pulls = ((0, 0), (0, 0), (0, 0)), 5
    bandit = make_environment({"kind": "bernoulli_bandit", "arms": 3, "pulls": pulls})
    assert BayesPolicy(bandit).value(list(start), pulls) == pytest.approx(value(start, pulls))
    assert total(bandit, BayesPolicy(bandit), 20000)[0] == pytest.approx(
        value(start, pulls), abs=0.04
    )


def test_gittins_indices_are_the_published_ones() -> None:
    """Gittins (1979), table 1 of discount 0.9: after (a - 1, b - 1) of Beta(a, b)."""
    table = gittins_table(4, 0.9)
    assert table[0, 0] == pytest.approx(0.7029, abs=2e-3)
    assert table[1, 0] == pytest.approx(0.8001, abs=2e-3)
    assert table[0, 1] == pytest.approx(0.5001, abs=2e-3)
    assert table[1, 1] == pytest.approx(0.6346, abs=2e-3)


def test_psrl_plans_what_is_best_and_learns() -> None:
    environment = TabularMDP(states=2, actions=2, horizon=2, episodes=2)
    policy = PosteriorSampling(environment, samples=False)
    visits = torch.tensor([[[[8.0, 0.0], [0.0, 8.0]], [[8.0, 0.0], [0.0, 8.0]]]])
    rewards = torch.tensor([[[4.0, 0.0], [0.0, 40.0]]])
    model = Model(visits, rewards, torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]]))
    plan = policy.planned(model, lambda count, purpose=0: torch.zeros(1, count))
    mean, chances = (1 + rewards) / 9, (1 + visits) / 10
    gains = {}
    for a, b, c in itertools.product(range(2), repeat=3):  # first action, then one a state
        later = torch.stack([mean[0, 0, b], mean[0, 1, c]])
        gains[a, b, c] = (mean[0, 0, a] + (chances[0, 0, a] * later).sum()).item()
    best = max(gains, key=lambda key: gains[key])
    assert plan.flatten()[[0, 2, 3]].tolist() == list(best)
    large = TabularMDP()
    by_chance, _ = total(large, RandomActor(large), 100)
    assert by_chance == pytest.approx(100, abs=5)
    for actor in (PosteriorSampling(large), PosteriorSampling(large, False, 0.1)):
        assert total(large, actor, 100)[0] > 125


def test_what_is_seen_is_counted_once() -> None:
    environment = TabularMDP(states=2, actions=2, horizon=2, episodes=2)
    policy = PosteriorSampling(environment)
    first, second = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    zero, one = torch.zeros(1), torch.ones(1)
    model = policy.seen(None, Moment(0, first, torch.zeros(1, 1), zero, zero))
    model = policy.seen(model, Moment(1, second, torch.ones(1, 1), 3 * one, zero))
    assert model.visits[0, 0, 1].tolist() == [0, 1]
    assert model.total[0, 0].tolist() == [0, 3]
    model = policy.seen(model, Moment(2, first, torch.zeros(1, 1), 2 * one, one))
    assert model.visits.sum() == 1  # where the episode ended nobody saw what came
    assert model.total[0, 1].tolist() == [2, 0]


def test_policies_refuse_what_they_are_not_made_for() -> None:
    walk = make_environment({"kind": "navigation"})
    bandit = make_environment({"kind": "bernoulli_bandit", "pulls": 100})
    refused: dict[str, Any] = {
        "^UCB1 is a policy for bandits, but the environment is navi": lambda: UCB1Index(walk, 0.2),
        "^ThompsonSampling is a policy for bandits": lambda: ThompsonIndex(walk, optimistic=True),
        "GittinsIndex is a policy for Bernoulli": lambda: GittinsPolicy(walk, 0.9),
        "has 100 pulls a trial; set pulls to at most 16": lambda: BayesPolicy(bandit),
        "PSRL plans in tabular MDPs": lambda: PosteriorSampling(bandit),
        "which bernoulli_bandit does not have": lambda: ToGoal(bandit, torch.zeros(1, 2)),
    }
    for told, make in refused.items():
        with pytest.raises(FewshotError, match=told):
            make()
