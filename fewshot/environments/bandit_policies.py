"""Policies for bandits that nothing trains: actors that the learned ones are compared with.

Each pulls the arm of the largest index; ties are broken at random. Shapes: n trials, K arms.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fewshot.environments.base import Environment
from fewshot.environments.beliefs import BetaBelief, NormalBelief, belief_of
from fewshot.environments.play import OF_TIES, Moment, Uniform

TIE = 1e-5
"""Indices that differ are further apart."""


@dataclass(frozen=True)
class IndexPolicy(ABC):
    """Pulls the arm of the largest index.

    Raises:
        FewshotError: the environment is no bandit.
    """

    called: ClassVar[str]
    """What messages call it: the learner's name."""

    environment: Environment

    def __post_init__(self) -> None:
        belief_of(self.environment, self.called)

    def __call__(self, memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
        """The arms (n, 1), and the belief so far."""
        arms = self.environment.action_size
        belief = belief_of(self.environment, self.called).after(memory, moment, arms)
        index = self.index(belief, moment.step, uniform) + TIE * uniform(arms, OF_TIES)
        return index.argmax(1, keepdim=True), belief

    @abstractmethod
    def index(self, belief: BetaBelief | NormalBelief, step: int, uniform: Uniform) -> Tensor:
        """The arms' indices (n, K) before pull `step`, from 0."""


@dataclass(frozen=True)
class EpsilonGreedyIndex(IndexPolicy):
    """The posterior mean; with probability `epsilon` a random arm."""

    called: ClassVar[str] = "EpsilonGreedy"
    epsilon: float

    def index(self, belief: BetaBelief | NormalBelief, step: int, uniform: Uniform) -> Tensor:
        """The means, or random numbers."""
        numbers = uniform(1 + self.environment.action_size)
        return torch.where(numbers[:, :1] < self.epsilon, numbers[:, 1:], belief.mean())


@dataclass(frozen=True)
class UCB1Index(IndexPolicy):
    """The posterior mean and ``scale * sqrt(2 log t / (2 + pulls))``, in pull t from 1."""

    called: ClassVar[str] = "UCB1"
    scale: float

    def index(self, belief: BetaBelief | NormalBelief, step: int, uniform: Uniform) -> Tensor:
        """The upper confidence bounds."""
        return belief.mean() + self.scale * (2 * math.log(step + 1) / (2 + belief.pulls)).sqrt()


@dataclass(frozen=True)
class ThompsonIndex(IndexPolicy):
    """A draw of the posterior; `optimistic`: not below its mean."""

    called: ClassVar[str] = "ThompsonSampling"
    optimistic: bool

    def index(self, belief: BetaBelief | NormalBelief, step: int, uniform: Uniform) -> Tensor:
        """The draws."""
        drawn = belief.sample(uniform)
        return torch.maximum(drawn, belief.mean()) if self.optimistic else drawn


@dataclass(frozen=True)
class RandomActor:
    """Discrete actions all alike, values uniform in [-0.1, 0.1]."""

    environment: Environment

    def __call__(self, memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
        """The actions (n, A)."""
        numbers = uniform(self.environment.action_size)
        if self.environment.discrete:
            return numbers.argmax(1, keepdim=True), None
        return 0.2 * numbers - 0.1, None
