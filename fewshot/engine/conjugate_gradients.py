"""Linear systems by their products alone."""

from collections.abc import Callable

import torch
from torch import Tensor


def conjugate_gradients(product: Callable[[Tensor], Tensor], b: Tensor, steps: int) -> Tensor:
    """The solution x (n,) of A x = b after `steps` iterations from 0.

    No branches, so that it can be vmapped over.

    Args:
        product: A x for x (n,), with A symmetric and positive definite.
        b: the right side (n,).
        steps: iterations; those after the exact solution change nothing.
    """
    x, residual, direction = torch.zeros_like(b), b, b
    square = residual.dot(residual)
    for _ in range(steps):
        step = product(direction)
        rate = _ratio(square, direction.dot(step))
        x, residual = x + rate * direction, residual - rate * step
        square, before = residual.dot(residual), square
        direction = residual + _ratio(square, before) * direction
    return x


def _ratio(one: Tensor, other: Tensor) -> Tensor:
    """The first over the second, and 0 where both are 0: there is nothing left to solve."""
    return one / torch.where(other == 0, torch.ones_like(other), other)
