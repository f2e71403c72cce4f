"""Adversarial attacks: small input changes, in a maximum-norm ball, that raise a loss."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fewshot.arguments import Count, Positive
from fewshot.engine.inner_loop import scaled_gradient
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError
from fewshot.hyperparameters import RemembersArguments

Loss = Callable[[Tensor], Tensor]
"""A scalar of inputs (n, ...)."""


class Attack(RemembersArguments, ABC):
    """An attack on float inputs (n, ...): raises the loss, moving no value more than `epsilon`.

    All benchmarks of images have inputs in [0, 1], which no learner normalises before its network:
    epsilon is in those units, 8/255 is eight grey levels.

    Args:
        epsilon: the largest change of any value.
        low: smallest valid value of an input; ``-.inf`` where there is none.
        high: largest valid value of an input; ``.inf`` where there is none.
    """

    def __init__(self, epsilon: Positive = 0.1, low: float = 0.0, high: float = 1.0) -> None:
        if not low < high:
            raise FewshotError(
                f"low is {low} and high is {high}; set low < high, the valid range of the inputs"
            )
        self.epsilon, self.low, self.high = epsilon, low, high

    @abstractmethod
    def __call__(self, loss: Loss, inputs: Tensor, seed: int | None = None) -> Tensor:
        """Adversarial inputs (n, ...), detached from all that made them.

        Args:
            loss: what the attack raises; it may be vmapped over, and gradients may be off.
            inputs: what is attacked, values in [low, high].
            seed: of the attack's random numbers, which then are the same for all inputs of one
                shape. None takes torch's own, other ones each time.
        """

    def check(self, inputs: Inputs) -> None:
        """Refuse inputs that the attack is not for.

        Raises:
            FewshotError: they are no tensor, no floats, or outside of the valid range.
        """
        name = type(self).__name__
        if not isinstance(inputs, Tensor):
            raise FewshotError(
                f"{name} changes the values of one tensor, but the inputs are a dict of"
                f" {', '.join(inputs)}; leave out `attack`"
            )
        if not inputs.is_floating_point():
            raise FewshotError(
                f"{name} changes floats, but the inputs are {inputs.dtype}; leave out `attack`"
            )
        least, most = inputs.min().item(), inputs.max().item()
        if least < self.low or most > self.high:
            raise FewshotError(
                f"the inputs are from {least:g} to {most:g}, but the valid range of {name} is from"
                f" {self.low:g} to {self.high:g}; set its low and high"
            )

    def ascend(self, loss: Loss, inputs: Tensor, step: float) -> Tensor:
        """Move inputs (n, ...) by `step` along the gradient's sign.

        A loss that is linear in the ball has its maximum there.
        """
        with torch.no_grad():
            gradient = scaled_gradient(lambda named: loss(named["inputs"]), {"inputs": inputs})[
                "inputs"
            ]
        # detached for a compiler, which sees operations only
        return inputs + step * gradient.detach().sign()


class FGSM(Attack):
    """FGSM: the fast gradient sign method, one step to the corner of the ball.

    Paper: arXiv:1412.6572.

    The paper's epsilon is 0.25 on MNIST and 0.1 on CIFAR-10.
    """

    def __call__(self, loss: Loss, inputs: Tensor, seed: int | None = None) -> Tensor:
        """Adversarial inputs (n, ...); nothing is random."""
        return self.ascend(loss, inputs.detach(), self.epsilon).clamp(self.low, self.high)


class PGD(Attack):
    """PGD: projected gradient descent on the negative loss, from a random place in the ball.

    Paper: arXiv:1706.06083.

    The paper's epsilon is 0.3 on MNIST, with 40 steps of 0.01, and 8/255 on CIFAR-10, with 7 steps
    of a quarter of it.

    Args:
        epsilon: the largest change of any value.
        step_size: the change of a step.
        steps: how many.
        random_start: begin at a uniformly random place in the ball instead of the inputs.
        **kwargs: arguments of `Attack`.
    """

    def __init__(
        self,
        epsilon: Positive = 0.1,
        step_size: Positive = 0.025,
        steps: Count = 7,
        random_start: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(epsilon, **kwargs)
        self.step_size, self.steps, self.random_start = step_size, steps, random_start

    def __call__(self, loss: Loss, inputs: Tensor, seed: int | None = None) -> Tensor:
        """Adversarial inputs (n, ...)."""
        inputs = inputs.detach()
        attacked = (
            self._project(inputs + self.epsilon * _uniform(inputs, seed), inputs)
            if self.random_start
            else inputs
        )
        for _ in range(self.steps):
            attacked = self._project(self.ascend(loss, attacked, self.step_size), inputs)
        return attacked

    def _project(self, attacked: Tensor, inputs: Tensor) -> Tensor:
        """The nearest point of the ball around `inputs` that is in the valid range too."""
        return attacked.clamp(inputs - self.epsilon, inputs + self.epsilon).clamp(
            self.low, self.high
        )


def _uniform(like: Tensor, seed: int | None) -> Tensor:
    """Numbers in [-1, 1) of the shape of `like`."""
    if seed is None:
        return 2 * torch.rand_like(like) - 1
    # NumPy's, because torch would draw others for each episode of a vmap, and the results depend on
    # how it is run
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, tuple(like.shape))).to(like)
