"""Navigation by one who is told the goal: the bound of every learner."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fewshot.environments.base import Environment
from fewshot.environments.navigation import Navigation
from fewshot.environments.play import Moment, Uniform
from fewshot.errors import FewshotError


@dataclass(frozen=True)
class ToGoal:
    """Steps straight to the goal.

    Args:
        environment: of navigation.
        goals: (n, 2).

    Raises:
        FewshotError: the environment has no goal.
    """

    environment: Environment
    goals: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.environment, Navigation):
            raise FewshotError(
                f"ToldGoal goes to the goal, which {self.environment.kind} does not have; use"
                " NavigationDataModule"
            )

    def __call__(self, memory: Any, moment: Moment, uniform: Uniform) -> tuple[Tensor, Any]:
        """The way that is left (n, 2), which the environment cuts to one step."""
        return self.goals - moment.observation, None
