"""The Bayes-optimal policy of a short Bernoulli bandit, by dynamic programming over Beta counts."""

from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from fewshot.environments.bandit_policies import IndexPolicy
from fewshot.environments.beliefs import BetaBelief, NormalBelief
from fewshot.environments.bernoulli_bandit import BernoulliBandit
from fewshot.environments.gaussian_bandit import GaussianBandit
from fewshot.errors import FewshotError

Arms: TypeAlias = tuple[tuple[int, int], ...]
"""Successes and failures of each arm, sorted: which arm is which does not matter."""
MOST = 16
"""Pulls of a trial, above which there are too many states."""


@dataclass(frozen=True)
class BayesPolicy(IndexPolicy):
    """The expected reward of the whole trial after each arm, under the uniform prior.

    Raises:
        FewshotError: the environment is no Bernoulli bandit, or its trials are too long.
    """

    called: ClassVar[str] = "BayesOptimum"
    values: dict[Arms, float] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        environment = self.environment
        if not isinstance(environment, BernoulliBandit) or isinstance(environment, GaussianBandit):
            told = f"is {environment.kind}; use BanditDataModule with kind: bernoulli"
        elif environment.pulls > MOST:
            told = f"has {environment.pulls} pulls a trial; set pulls to at most {MOST}"
        else:
            return
        raise FewshotError(
            f"{self.called} enumerates what short Bernoulli bandits may show, but this one {told}"
        )

    def index(self, belief: BetaBelief | NormalBelief, step: int, uniform: object) -> Tensor:
        """The expected rewards (n, K) of what is left of the trial."""
        left = self.environment.steps - step
        wins, losses = belief.total.long(), (belief.pulls - belief.total).long()
        states = torch.stack([wins, losses], -1)
        distinct, places = torch.unique(states, dim=0, return_inverse=True)
        rows = [
            self.after_each([(int(s), int(f)) for s, f in arms], left) for arms in distinct.tolist()
        ]
        return torch.tensor(rows, device=states.device).to(belief.total)[places]

    def after_each(self, arms: list[tuple[int, int]], left: int) -> list[float]:
        """The expected rewards of `left` pulls, the first of each arm in turn."""
        found = dict[tuple[int, int], float]()
        for arm in set(arms):
            wins, losses = arm
            others = list(arms)
            others.remove(arm)
            mean = (wins + 1) / (wins + losses + 2)
            won = self.value([*others, (wins + 1, losses)], left - 1)
            lost = self.value([*others, (wins, losses + 1)], left - 1)
            found[arm] = mean * (1 + won) + (1 - mean) * lost
        return [found[arm] for arm in arms]

    def value(self, arms: list[tuple[int, int]], left: int) -> float:
        """The expected reward of `left` pulls; `left` follows from the counts."""
        if left == 0:
            return 0.0
        key = tuple(sorted(arms))
        if key not in self.values:
            self.values[key] = max(self.after_each(list(key), left))
        return self.values[key]
