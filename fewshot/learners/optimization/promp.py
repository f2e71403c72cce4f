"""The clipped surrogate of ProMP (Rothfuss et al., arXiv:1810.06784)."""

from collections.abc import Callable
from typing import cast

from torch import Tensor

from fewshot.arguments import Count, Positive
from fewshot.learners.optimization.outer import Outer
from fewshot.tasks import Task
from fewshot.tasks.control import Control, Steps, mean_of_steps


class ProMP(Outer):
    """Several optimizer steps on what was played, by PPO's clipped surrogate.

    Without ProMP's penalty on how far the initial policy moves. Paper: arXiv:1810.06784.

    Args:
        clip: how far the ratio of probabilities may go from 1 (the paper: 0.3).
        epochs: optimizer steps on what was played (the paper: 5).
    """

    def __init__(self, clip: Positive = 0.3, epochs: Count = 5) -> None:
        self.clip, self.epochs = clip, epochs

    def loss(self, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
        """Minus the mean of the smaller of ratio x advantage, and the same with a clipped ratio."""

        def clipped(outputs: Tensor, targets: Tensor) -> Tensor:
            control = cast(Control, task)
            steps = Steps.of(targets, control)
            ratio = control.ratio(outputs, steps)
            near = ratio.clamp(1 - self.clip, 1 + self.clip)
            gains = (ratio * steps.advantages).minimum(near * steps.advantages)
            return -mean_of_steps(gains, steps.mask)

        return clipped
