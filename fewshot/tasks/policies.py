"""Distributions over actions, by the outputs of a policy: categorical and Gaussian.

Shapes: "..." any axes, A actions, or values of one.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from fewshot.environments.noise import normal

LEAST_DEVIATION = 1e-6


class Policy(ABC):
    """How outputs (..., `size`) say by what chance an action is taken."""

    def __init__(self, actions: int) -> None:
        self.actions = actions

    @property
    @abstractmethod
    def size(self) -> int:
        """Outputs of a state."""

    @property
    @abstractmethod
    def numbers(self) -> int:
        """Uniform numbers that drawing an action takes."""

    @abstractmethod
    def sample(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        """Actions (..., 1) or (..., A), by uniform numbers (..., `numbers`)."""

    @abstractmethod
    def mode(self, outputs: Tensor) -> Tensor:
        """The likeliest actions (..., 1) or (..., A)."""

    @abstractmethod
    def log_prob(self, outputs: Tensor, action: Tensor) -> Tensor:
        """The log-probability, or log-density, (...) of actions."""

    @abstractmethod
    def kl(self, outputs: Tensor, other: Tensor) -> Tensor:
        """KL(pi || other) (...) from distributions to others."""

    @abstractmethod
    def entropy(self, outputs: Tensor) -> Tensor:
        """The entropy (...)."""

    def head(self, features: int) -> nn.Module | None:
        """The module from features to outputs, where it is no linear layer."""
        return None


class Categorical(Policy):
    """One of A actions, written as its number; outputs are logits."""

    @property
    def size(self) -> int:
        """A logits."""
        return self.actions

    @property
    def numbers(self) -> int:
        """One."""
        return 1

    def sample(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        """The action in whose part of [0, 1) the number lies."""
        below = outputs.softmax(-1).cumsum(-1) < uniform
        return below.sum(-1, keepdim=True).clamp(max=self.actions - 1)

    def mode(self, outputs: Tensor) -> Tensor:
        """That of the largest logit."""
        return outputs.argmax(-1, keepdim=True)

    def log_prob(self, outputs: Tensor, action: Tensor) -> Tensor:
        """Of the action taken."""
        return outputs.log_softmax(-1).gather(-1, action.long())[..., 0]

    def kl(self, outputs: Tensor, other: Tensor) -> Tensor:
        """Of the probabilities."""
        log_p = outputs.log_softmax(-1)
        return (log_p.exp() * (log_p - other.log_softmax(-1))).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        """Of the probabilities."""
        log_p = outputs.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


class Gaussian(Policy):
    """A real values, independent; outputs are their means, then the logs of their deviations."""

    @property
    def size(self) -> int:
        """A mean and a deviation a value."""
        return 2 * self.actions

    @property
    def numbers(self) -> int:
        """One a value."""
        return self.actions

    def sample(self, outputs: Tensor, uniform: Tensor) -> Tensor:
        """The mean plus so many deviations."""
        mean, log_deviation = outputs.chunk(2, -1)
        return mean + log_deviation.exp() * normal(uniform)

    def mode(self, outputs: Tensor) -> Tensor:
        """The mean."""
        return outputs.chunk(2, -1)[0]

    def log_prob(self, outputs: Tensor, action: Tensor) -> Tensor:
        """The log-density."""
        mean, log_deviation = outputs.chunk(2, -1)
        z = (action - mean) * (-log_deviation).exp()
        return -(0.5 * z.square() + log_deviation + 0.5 * math.log(2 * math.pi)).sum(-1)

    def kl(self, outputs: Tensor, other: Tensor) -> Tensor:
        """Of the normal distributions."""
        (mean, log_s), (mean_o, log_o) = outputs.chunk(2, -1), other.chunk(2, -1)
        ratio = (2 * (log_s - log_o)).exp()
        shift = ((mean - mean_o) * (-log_o).exp()).square()
        return (log_o - log_s + 0.5 * (ratio + shift - 1)).sum(-1)

    def entropy(self, outputs: Tensor) -> Tensor:
        """Of the normal distributions."""
        log_deviation = outputs.chunk(2, -1)[1]
        return (log_deviation + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)

    def head(self, features: int) -> nn.Module:
        """Means from features, and a learned deviation that is the same in all states."""
        return GaussianHead(features, self.actions)


class GaussianHead(nn.Module):
    """A linear layer to the means, and the logs of the deviations, which begin at 1."""

    def __init__(self, features: int, actions: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, actions)
        self.log_deviation = nn.Parameter(torch.zeros(actions))

    def forward(self, features: Tensor) -> Tensor:
        """Outputs (..., 2 A) of features (..., D)."""
        mean = self.mean(features)
        log_deviation = self.log_deviation.clamp(min=math.log(LEAST_DEVIATION))
        return torch.cat([mean, log_deviation.to(mean.dtype).expand_as(mean)], -1)
