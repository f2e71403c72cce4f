"""The Bernoulli bandit: arms that pay 1 with probabilities nobody knows."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewshot.arguments import Count, Range
from fewshot.environments.base import Environment, Step


@dataclass(frozen=True)
class BernoulliBandit(Environment):
    """K arms with p ~ U[0, 1]; an episode is one pull, a trial N of them.

    Nothing is observed but the reward: the observation is the constant 1.

    Args:
        arms: how many can be pulled, K.
        pulls: N.
    """

    kind: ClassVar[str] = "bernoulli_bandit"
    discrete: ClassVar[bool] = True
    noise: ClassVar[int] = 1
    has_regret: ClassVar[bool] = True
    horizon: ClassVar[int] = 1
    observation_size: ClassVar[int] = 1

    arms: Annotated[int, Range(2, why=": a bandit needs at least 2 arms")] = 5
    pulls: Count = 10

    @property
    def episodes(self) -> int:
        """One a pull."""
        return self.pulls

    @property
    def action_size(self) -> int:
        """One action an arm."""
        return self.arms

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The arms' means (K,)."""
        return rng.random(self.arms)

    def begin(self, facts: Tensor, noise: Tensor) -> Tensor:
        """Nothing changes: a constant."""
        return torch.ones_like(facts[:, :1])

    def observe(self, state: Tensor) -> Tensor:
        """The constant."""
        return state

    def step(self, state: Tensor, action: Tensor, facts: Tensor, noise: Tensor) -> Step:
        """1 with the arm's probability, and the end of the episode."""
        return Step(
            state, self.pay(mean_of(facts, action), noise[:, 0]), torch.ones_like(state[:, 0])
        )

    def pay(self, mean: Tensor, noise: Tensor) -> Tensor:
        """Rewards (n,) of arms with this `mean` (n,)."""
        return (noise < mean).to(mean)

    def regrets(self, observations: Tensor, facts: Tensor) -> Tensor:
        """By how much the best arm's mean is larger."""
        lost = facts.amax(1, keepdim=True) - facts
        return lost[:, None].expand(-1, observations.shape[1], -1)


def mean_of(facts: Tensor, action: Tensor) -> Tensor:
    """The means (n,) of the arms pulled."""
    return facts.gather(1, action.long())[:, 0]
