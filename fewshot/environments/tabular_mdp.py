"""Random tabular MDPs (Duan et al., RL^2, arXiv:1611.02779)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Count
from fewshot.environments.base import Environment, Step
from fewshot.environments.noise import normal


@dataclass(frozen=True)
class TabularMDP(Environment):
    """P(s'|s, a) ~ Dirichlet(1), mean rewards ~ N(1, 1), rewards ~ N(mean, 1), start in state 0.

    Args:
        states: how many.
        actions: how many.
        horizon: steps of an episode.
        episodes: of a trial, N.
    """

    kind: ClassVar[str] = "tabular_mdp"
    discrete: ClassVar[bool] = True
    noise: ClassVar[int] = 2
    has_regret: ClassVar[bool] = True

    states: Count = 10
    actions: Count = 5
    horizon: Count = 10
    episodes: Count = 10

    @property
    def observation_size(self) -> int:
        """The state, one-hot."""
        return self.states

    @property
    def action_size(self) -> int:
        """The actions."""
        return self.actions

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """Transitions (states, actions, states) and mean rewards (states, actions), flat."""
        pairs = (self.states, self.actions)
        transitions = rng.dirichlet(np.ones(self.states), pairs)
        return np.concatenate([transitions.ravel(), rng.normal(1, 1, pairs).ravel()])

    def begin(self, facts: Tensor, noise: Tensor) -> Tensor:
        """State 0."""
        return torch.zeros_like(facts[:, :1])

    def observe(self, state: Tensor) -> Tensor:
        """The state, one-hot."""
        return F.one_hot(state[:, 0].long(), self.states).to(state)

    def step(self, state: Tensor, action: Tensor, facts: Tensor, noise: Tensor) -> Step:
        """The next state by the first number, the reward by the second."""
        pair = state.long() * self.actions + action.long()
        places = pair * self.states + torch.arange(self.states, device=facts.device)
        below = facts.gather(1, places).cumsum(1) < noise[:, :1]
        following = below.sum(1, keepdim=True).clamp(max=self.states - 1).to(state)
        mean = facts.gather(1, self.states**2 * self.actions + pair)[:, 0]
        return Step(following, mean + normal(noise[:, 1]), torch.zeros_like(mean))

    def regrets(self, observations: Tensor, facts: Tensor) -> Tensor:
        """The value of each state less that of the pair, by dynamic programming."""
        size, pairs = self.states, (self.states, self.actions)
        chances = facts[:, : size * size * self.actions].view(-1, *pairs, size)
        mean = facts[:, size * size * self.actions :].view(-1, *pairs)
        worth = worth_by_step(chances, mean, self.horizon)
        by_step = (worth.amax(-1, keepdim=True) - worth).flatten(1, 2)
        step = torch.arange(observations.shape[1], device=facts.device) % self.horizon
        place = step * size + observations.argmax(-1)
        return by_step.gather(1, place[..., None].expand(-1, -1, self.actions))


def worth_by_step(chances: Tensor, mean: Tensor, horizon: int) -> Tensor:
    """What the best policy expects of the rest of an episode after each action.

    Args:
        chances: P(s'|s, a), (n, S, A, S).
        mean: of the rewards, (n, S, A).
        horizon: H, the steps of an episode.

    Returns:
        By the step at which the action is taken, (n, H, S, A).
    """
    value, found = torch.zeros_like(mean[..., 0]), []
    for _ in range(horizon):
        found.append(mean + (chances * value[:, None, None]).sum(-1))
        value = found[-1].amax(-1)
    return torch.stack(found[::-1], 1)
