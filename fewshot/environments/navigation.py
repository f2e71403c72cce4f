"""Navigation to a point of the plane (Finn et al., MAML, arXiv:1703.03400), dense and sparse."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fewshot.arguments import Count, Positive
from fewshot.environments.base import Environment, Step


@dataclass(frozen=True)
class Navigation(Environment):
    """goal ~ U[-0.5, 0.5]^2, start at 0, s += clip(a, -0.1, 0.1), reward -|s - goal|.

    An episode ends where both coordinates are within 0.01 of the goal.

    Args:
        horizon: steps of an episode, at most.
        episodes: of a trial.
    """

    kind: ClassVar[str] = "navigation"
    discrete: ClassVar[bool] = False
    plane: ClassVar[bool] = True
    observation_size: ClassVar[int] = 2
    action_size: ClassVar[int] = 2
    REACH: ClassVar[float] = 0.5
    STEP: ClassVar[float] = 0.1
    NEAR: ClassVar[float] = 0.01

    horizon: Count = 100
    episodes: Count = 1

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The goal (2,)."""
        return rng.uniform(-self.REACH, self.REACH, 2)

    def begin(self, facts: Tensor, noise: Tensor) -> Tensor:
        """The middle."""
        return torch.zeros_like(facts)

    def observe(self, state: Tensor) -> Tensor:
        """The place."""
        return state

    def step(self, state: Tensor, action: Tensor, facts: Tensor, noise: Tensor) -> Step:
        """A step towards where the action points; nothing is random."""
        state = state + action.clamp(-self.STEP, self.STEP)
        x, y = (state - facts).unbind(1)  # two columns: reductions of an axis of two are slow
        ended = torch.maximum(x.abs(), y.abs()) <= self.NEAR
        return Step(state, -(x * x + y * y).sqrt(), ended.to(state.dtype))


@dataclass(frozen=True)
class SparseNavigation(Navigation):
    """The same with a reward near the goal alone: 1 - |s - goal| / radius within `radius`, else 0.

    An episode has all its steps: who reaches the goal gains by staying. The form is that of ProMP's
    sparse environments (arXiv:1810.06784).

    Args:
        radius: how near.
    """

    kind: ClassVar[str] = "sparse_navigation"

    radius: Positive = 0.2

    def step(self, state: Tensor, action: Tensor, facts: Tensor, noise: Tensor) -> Step:
        """The same step, rewarded near the goal."""
        state, lost, _ = super().step(state, action, facts, noise)
        return Step(state, (1 + lost / self.radius).clamp(min=0), torch.zeros_like(lost))
