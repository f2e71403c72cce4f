"""Differentiable inner optimisation: weights in, weights out, as pure functions."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor

Weights: TypeAlias = dict[str, Tensor]
"""Parameters of a network by name; `fast_weights` are those of one episode."""


def gradient_steps(
    loss: Callable[[Weights], Tensor], weights: Weights, lr: float, steps: int, first_order: bool = False
) -> Iterator[Weights]:
    """Yield the weights before and after each of `steps` steps of gradient descent: w <- w - lr * dloss/dw.

    Args:
        loss: the support loss of given weights, a scalar.
        weights: where the descent starts.
        lr: the inner learning rate.
        steps: K.
        first_order: take the gradients as constants, which drops second derivatives from the meta-gradient (FOMAML,
            arXiv:1703.03400 section 5.2).
    """
    yield weights
    for _ in range(steps):
        with torch.no_grad() if first_order else nullcontext():
            gradients = torch.func.grad(loss)(weights)
        weights = {name: weight - lr * gradients[name] for name, weight in weights.items()}
        yield weights
