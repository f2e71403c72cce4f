"""Gittins' index of Bernoulli arms, by calibration with an arm that is known (Gittins, 1979)."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewshot.environments.bandit_policies import IndexPolicy
from fewshot.environments.beliefs import BetaBelief, NormalBelief
from fewshot.environments.bernoulli_bandit import BernoulliBandit
from fewshot.environments.gaussian_bandit import GaussianBandit
from fewshot.errors import FewshotError

GRID = 512
"""Known arms that an unknown one is compared with."""


@dataclass(frozen=True)
class GittinsPolicy(IndexPolicy):
    """The index of each arm where rewards are discounted by `discount` a pull.

    Raises:
        FewshotError: the environment is no Bernoulli bandit.
    """

    called: ClassVar[str] = "GittinsIndex"
    discount: float

    def __post_init__(self) -> None:
        if not isinstance(self.environment, BernoulliBandit) or isinstance(
            self.environment, GaussianBandit
        ):
            raise FewshotError(
                f"{self.called} is a policy for Bernoulli bandits, but the environment is"
                f" {self.environment.kind}; use BanditDataModule with kind: bernoulli"
            )

    def index(self, belief: BetaBelief | NormalBelief, step: int, uniform: object) -> Tensor:
        """The arms' indices (n, K)."""
        table = torch.from_numpy(gittins_table(self.environment.steps, self.discount))
        wins = belief.total.long()
        return table.to(belief.total)[wins, belief.pulls.long() - wins]


@cache
def gittins_table(pulls: int, discount: float) -> np.ndarray:
    """Indices (pulls, pulls) after so many successes and failures, fewer than `pulls` together.

    An arm's index is the payment of a known arm that makes both equally good to one who may leave
    the unknown arm for the known one for ever. The recursion looks a discounted horizon further.
    """
    known = (np.arange(GRID) + 0.5) / GRID  # payments
    depth = pulls + min(2000, int(np.ceil(np.log(1e-3) / np.log(discount))))
    wins = np.arange(depth + 1)[:, None]
    mean = (wins + 1) / (depth + 2)
    value = np.maximum(mean, known) / (1 - discount)  # then one arm for ever
    table = np.zeros((pulls, pulls))
    for total in range(depth - 1, -1, -1):
        wins = np.arange(total + 1)[:, None]
        mean = (wins + 1) / (total + 2)
        stay = mean * (1 + discount * value[1:]) + (1 - mean) * discount * value[:-1]
        leave = known / (1 - discount)
        value = np.maximum(stay, leave)
        if (
            total < pulls
        ):  # the largest payment at which staying is as good, between two of the grid
            ahead = stay - leave
            last = (ahead > 0).sum(1).clip(1, GRID - 1)
            rows = np.arange(total + 1)
            high, low = ahead[rows, last - 1], ahead[rows, last]
            share = np.where(high > low, high / (high - low + 1e-300), 0).clip(0, 1)
            table[rows, total - rows] = (last - 0.5 + share) / GRID
    return table
