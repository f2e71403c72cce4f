"""What Reptile's inner Adam goes on with from task to task (arXiv:1803.02999)."""

import math

import torch
from torch import Tensor, nn

from fewshot.engine.inner_loop import Weights
from fewshot.learners.optimization.parameters import as_key

BETA2 = 0.999  # of Adam


class SecondMoment(nn.Module):
    """The running average of squared gradients, and how many went into it.

    A few inner steps are too few to know how large a weight's gradient usually is: begun anew in
    each task, Adam's first step moves every weight equally far, whatever its gradient. Buffers, so
    that checkpoints hold them.

    Args:
        weights: what adapts.
    """

    steps: Tensor

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.names = tuple(weights)
        for name, weight in weights.items():
            self.register_buffer(as_key(name), torch.zeros_like(weight))

    @property
    def squares(self) -> Weights:
        """The average for each weight, which began at zero."""
        return {name: self.get_buffer(as_key(name)) for name in self.names}

    def share(self, more: int) -> Tensor:
        """The share of gradients, not of zero, in the average's weight `more` steps from now."""
        # 1 - BETA2^steps is a difference of almost equal numbers.
        return -torch.expm1(
            (self.steps + more).to(self.get_buffer(as_key(self.names[0])).dtype) * math.log(BETA2)
        )

    @torch.no_grad()
    def go_on(self, squares: Weights, steps: int, tasks: int) -> None:
        """Average over the gradients of a meta-step too.

        Leave all as it is where one of them was not finite.

        The original code goes from task to task, `tasks * steps` steps. Here all begin with the
        same average, each ends with its own, and the new one has forgotten as much of the old.

        Args:
            squares: the average at the end of a task, in the mean over the tasks.
            steps: inner steps of a task.
            tasks: how many there were.
        """
        if not torch.isfinite(torch.nn.utils.get_total_norm(list(squares.values()))):
            return
        faster = math.expm1(tasks * steps * math.log(BETA2)) / math.expm1(steps * math.log(BETA2))
        for name, square in self.squares.items():
            square.add_(squares[name] - square, alpha=faster)
        self.steps += tasks * steps
