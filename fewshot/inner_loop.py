"""Differentiable inner optimisation: weights in, weights out, as pure functions."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor

Weights: TypeAlias = dict[str, Tensor]
"""Parameters of a network by name; `fast_weights` are those of one episode."""

Rate: TypeAlias = float | Callable[[int, str], Tensor | float]
"""The inner learning rate: a number, or a function of the step (0, 1, ...) and the parameter's name, which may give a
tensor that broadcasts."""


def gradient_steps(
    loss: Callable[[Weights], Tensor],
    weights: Weights,
    rate: Rate,
    steps: int,
    first_order: bool = False,
    clip: float | None = None,
) -> Iterator[Weights]:
    """Yield the weights before and after each of `steps` steps of gradient descent: w <- w - rate * dloss/dw.

    Args:
        loss: the support loss of given weights, a scalar.
        weights: where the descent starts.
        rate: the inner learning rate.
        steps: K.
        first_order: take the gradients as constants, which drops second derivatives from the meta-gradient (FOMAML,
            arXiv:1703.03400 section 5.2).
        clip: largest norm of a step's gradient over all weights; None leaves it as it is.
    """
    yield weights
    for step in range(steps):
        with torch.no_grad() if first_order else nullcontext():
            gradients = torch.func.grad(loss)(weights)
            if clip is not None:
                gradients = clipped(gradients, clip)
        rates = {name: rate(step, name) if callable(rate) else rate for name in weights}
        weights = {name: weight - rates[name] * gradients[name] for name, weight in weights.items()}
        yield weights


def clipped(gradients: Weights, largest: float) -> Weights:
    """The gradients, scaled down where their common norm exceeds `largest`; differentiable."""
    squares = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum()
    # The root of 0 has no derivative: a zero gradient takes the other branch, with a harmless 1 under the root.
    norm = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
    scale = torch.where(squares > largest**2, largest / norm, torch.ones_like(norm))
    return {name: scale * gradient for name, gradient in gradients.items()}


def with_gradient(value: Tensor, weights: Weights, gradient: Weights) -> Tensor:
    """A scalar that has this `value`, and this `gradient` with respect to `weights` whatever made either.

    For updates that are no loss's derivative (Reptile, implicit MAML): they then go through `manual_backward` like
    every other meta-gradient, so that ranks, precision and clipping see them.
    """
    slope = sum((gradient[name].detach() * (w - w.detach())).sum() for name, w in weights.items())
    return value.detach() + slope
