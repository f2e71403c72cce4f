"""The Gaussian bandit: arms that pay a mean nobody knows, with noise of deviation 1."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fewshot.environments.bernoulli_bandit import BernoulliBandit
from fewshot.environments.noise import normal


@dataclass(frozen=True)
class GaussianBandit(BernoulliBandit):
    """K arms with means ~ U[0, 1] and rewards ~ N(mean, 1), N pulls a trial."""

    kind: ClassVar[str] = "gaussian_bandit"

    def pay(self, mean: Tensor, noise: Tensor) -> Tensor:
        """Rewards (n,) of arms with this `mean` (n,)."""
        return mean + normal(noise)
