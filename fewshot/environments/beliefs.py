"""What Bayes' rule makes of the pulls of a bandit: the posterior of each arm's mean.

Shapes: n trials, K arms.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from typing_extensions import Self

from fewshot.environments.base import Environment
from fewshot.environments.bernoulli_bandit import BernoulliBandit
from fewshot.environments.gaussian_bandit import GaussianBandit
from fewshot.environments.noise import TRIES, gamma, normal
from fewshot.environments.play import Moment, Uniform
from fewshot.errors import FewshotError

PRIOR_MEAN, PRIOR_PRECISION = 0.5, 12.0
"""Of a mean that is U[0, 1], as a normal distribution of the same mean and variance."""


class Belief(NamedTuple):
    """Each arm's pulls and the sum of their rewards, (n, K)."""

    pulls: Tensor
    total: Tensor

    @classmethod
    def after(cls, memory: Self | None, moment: Moment, arms: int) -> Self:
        """The belief once the moment's last reward is known; at first nothing is."""
        if memory is None:
            nothing = moment.reward.new_zeros(len(moment.reward), arms)
            return cls(nothing, nothing)
        pulled = F.one_hot(moment.action[:, 0].long(), arms).to(moment.reward)
        return cls(memory.pulls + pulled, memory.total + pulled * moment.reward[:, None])


class BetaBelief(Belief):
    """Of probabilities: Beta(1 + successes, 1 + failures)."""

    def mean(self) -> Tensor:
        """Posterior means (n, K)."""
        return (1 + self.total) / (2 + self.pulls)

    def sample(self, uniform: Uniform) -> Tensor:
        """Draws of the posterior (n, K)."""
        shapes = torch.stack([1 + self.total, 1 + self.pulls - self.total], -1)
        numbers = uniform(shapes[0].numel() * 2 * TRIES).view(*shapes.shape, 2 * TRIES)
        drawn = gamma(shapes, numbers)
        return drawn[..., 0] / drawn.sum(-1)


class NormalBelief(Belief):
    """Of means seen with noise of deviation 1: N(m, 1 / (12 + pulls))."""

    def mean(self) -> Tensor:
        """Posterior means (n, K)."""
        return (PRIOR_PRECISION * PRIOR_MEAN + self.total) / (PRIOR_PRECISION + self.pulls)

    def sample(self, uniform: Uniform) -> Tensor:
        """Draws of the posterior (n, K)."""
        deviation = (PRIOR_PRECISION + self.pulls).rsqrt()
        return self.mean() + deviation * normal(uniform(self.pulls.shape[1]))


def belief_of(environment: Environment, policy: str) -> type[BetaBelief] | type[NormalBelief]:
    """The kind of belief that a bandit's pulls are about.

    Raises:
        FewshotError: it is no bandit; `policy` is what is told.
    """
    if isinstance(environment, GaussianBandit):
        return NormalBelief
    if isinstance(environment, BernoulliBandit):
        return BetaBelief
    raise FewshotError(
        f"{policy} is a policy for bandits, but the environment is {environment.kind}; use"
        " BanditDataModule, or another policy such as RandomPolicy"
    )
