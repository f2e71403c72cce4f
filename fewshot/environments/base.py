"""What every environment has: how a task is drawn, how it begins, and one step of it.

Shapes: n trajectories, F facts of a task, S values of a state, O of an observation, A of an action,
M uniform numbers a step. All functions are pure, take the axis n and can be vmapped: whatever is
random in a step comes of numbers that it is given.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from fewshot.hyperparameters import ChecksArguments


class Step(NamedTuple):
    """What comes of an action: the next state (n, S), rewards (n,), whether it is the end (n,)."""

    state: Tensor
    reward: Tensor
    ended: Tensor


@dataclass(frozen=True)
class Environment(ChecksArguments, ABC):
    """A family of tasks to act in.

    A trial is `episodes` of at most `horizon` steps each in the same task. What remembers learns
    from episode to episode; what does not plays them alike.
    """

    kind: ClassVar[str]
    """What facts and messages call it."""
    discrete: ClassVar[bool]
    """Whether an action is one of `action_size`, or as many real numbers."""
    noise: ClassVar[int] = 0
    """M, the uniform numbers that a step takes."""
    begin_noise: ClassVar[int] = 0
    """M', those that the beginning of an episode takes."""
    has_regret: ClassVar[bool] = False
    """Whether it is known what the best policy of a task would do."""
    plane: ClassVar[bool] = False
    """Whether an observation is a point of the plane, and the facts of a task are one too."""

    @property
    @abstractmethod
    def episodes(self) -> int:
        """Episodes of a trial."""

    @property
    @abstractmethod
    def horizon(self) -> int:
        """Steps of an episode, at most."""

    @property
    @abstractmethod
    def observation_size(self) -> int:
        """O."""

    @property
    @abstractmethod
    def action_size(self) -> int:
        """A: how many actions there are, or the values of one."""

    @property
    def steps(self) -> int:
        """T, the steps of a trial."""
        return self.episodes * self.horizon

    @property
    def action_values(self) -> int:
        """The values in which an action is written: the number of a discrete one is one value."""
        return 1 if self.discrete else self.action_size

    @abstractmethod
    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The facts (F,) of a task."""

    @abstractmethod
    def begin(self, facts: Tensor, noise: Tensor) -> Tensor:
        """States (n, S) where an episode begins, in tasks of `facts` (n, F); `noise` is (n, M')."""

    @abstractmethod
    def observe(self, state: Tensor) -> Tensor:
        """What is seen of states (n, S): observations (n, O)."""

    @abstractmethod
    def step(self, state: Tensor, action: Tensor, facts: Tensor, noise: Tensor) -> Step:
        """What comes of actions (n, A), of discrete ones (n, 1) numbers; `noise` is (n, M)."""

    def regrets(self, observations: Tensor, facts: Tensor) -> Tensor:
        """The expected reward (n, T, A) that each action forgoes, where `has_regret`.

        It is what the best policy of the task would still have expected of the episode, less what
        it would expect after the action.

        Args:
            observations: seen before each action, (n, T, O), from the beginning of the trials.
            facts: of the tasks, (n, F).
        """
        raise NotImplementedError
