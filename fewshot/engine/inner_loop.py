"""Differentiable inner optimisation: weights in, weights out, as pure functions."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import TypeAlias

import torch
from torch import Tensor

from fewshot.engine.compiling.regions import end_region
from fewshot.engine.modes import is_transformed
from fewshot.engine.recomputation import recomputed

Weights: TypeAlias = dict[str, Tensor]
"""Parameters of a network by name; `fast_weights` are those of one episode."""

Loss: TypeAlias = Callable[[Weights], Tensor]
"""A scalar of given weights."""

Rate: TypeAlias = float | Callable[[int, str], Tensor | float]
"""The inner learning rate: a number, or a function of the step (0, 1, ...) and the parameter's
name, which may give a tensor that broadcasts."""


SCALE = 2.0**10
"""What the inner loss is multiplied by under float16, whose smallest gradients would be zero; a
power of two, so that dividing the gradient by it again is exact."""


def gradient_steps(
    loss: Loss,
    weights: Weights,
    rate: Rate,
    steps: int,
    first_order: bool = False,
    clip: float | None = None,
    checkpoint: Sequence[Tensor] | None = None,
) -> Iterator[Weights]:
    """Yield the weights before and after each of `steps` descent steps: w <- w - rate * dloss/dw.

    Under autocast the weights stay as precise as they come; under float16 the loss is scaled
    (`SCALE`).

    Args:
        loss: the support loss of given weights, a scalar.
        weights: where the descent starts.
        rate: the inner learning rate.
        steps: K.
        first_order: take the gradients as constants, which drops second derivatives from the
            meta-gradient (FOMAML, arXiv:1703.03400 section 5.2).
        clip: largest norm of a step's gradient over all weights; None leaves it as it is.
        checkpoint: not None keeps no activations of the steps, which the backward pass computes
            again; names the tensors with a gradient that `loss` and `rate` read besides the
            weights.
    """
    return steps_on(lambda step, weights: loss, weights, rate, steps, first_order, clip, checkpoint)


def steps_on(
    losses: Callable[[int, Weights], Loss],
    weights: Weights,
    rate: Rate,
    steps: int,
    first_order: bool = False,
    clip: float | None = None,
    checkpoint: Sequence[Tensor] | None = None,
) -> Iterator[Weights]:
    """`gradient_steps` on a loss for each step, made of its number and of the weights before it.

    What examples the weights bring about is data to the step: nothing is differentiated through it.
    """

    def step(number: int, loss: Loss, weights: Weights) -> Weights:
        gradients = step_gradient(loss, weights, first_order, clip)
        rates = {name: rate(number, name) if callable(rate) else rate for name in weights}
        return {name: weight - rates[name] * gradients[name] for name, weight in weights.items()}

    yield weights
    for number in range(steps):
        this_step = functools.partial(step, number, losses(number, weights))
        end_region()
        weights = (
            this_step(weights) if checkpoint is None else recomputed(this_step, weights, checkpoint)
        )
        end_region()
        yield weights


def step_gradient(loss: Loss, weights: Weights, first_order: bool, clip: float | None) -> Weights:
    """What a step descends along: the gradient of `loss`, a constant in `first_order`, clipped."""
    with torch.no_grad() if first_order else nullcontext():
        gradients = scaled_gradient(loss, weights)
        if clip is not None:
            gradients = clipped(gradients, clip)
    if first_order:  # said once more for a compiler, which sees operations only
        gradients = {name: gradient.detach() for name, gradient in gradients.items()}
    return gradients


def scaled_gradient(loss: Callable[[Weights], Tensor], weights: Weights) -> Weights:
    """The gradient of `loss`, which is scaled on the way where float16 is in force.

    Args:
        loss: a scalar.
        weights: its argument.
    """
    gradient = _func_gradient if is_transformed() else _plain_gradient
    scale = scale_in_force(next(iter(weights.values())).device)
    if scale == 1:
        return gradient(loss, weights)
    scaled = gradient(lambda fast_weights: loss(fast_weights) * scale, weights)
    return {name: slope / scale for name, slope in scaled.items()}


def scale_in_force(device: torch.device) -> float:
    """What a loss is to be multiplied by before its gradient is taken: `SCALE` under float16."""
    kind = device.type
    half = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    return SCALE if half else 1.0


def descend_in_place(
    loss: Callable[[], Tensor], rates: Sequence[tuple[Tensor, float]], steps: int
) -> None:
    """Plain gradient descent, w <- w - rate * dloss/dw, that nothing is differentiated through.

    Args:
        loss: the loss of the weights as they are, a scalar.
        rates: the weights, which are leaves and change in place, each with its learning rate.
        steps: how many.
    """
    weights = [weight for weight, _ in rates]
    for _ in range(steps):
        slopes = _slopes(loss, weights)
        with torch.no_grad():
            for (weight, rate), slope in zip(rates, slopes, strict=True):
                weight.sub_(rate * slope)
        torch.clear_autocast_cache()  # which holds the weights as they were, cast


def adam_in_place(
    loss: Callable[[], Tensor], rates: Sequence[tuple[Tensor, float]], steps: int
) -> None:
    """The same by Adam (arXiv:1412.6980), with its own defaults."""
    _in_place(torch.optim.Adam, loss, rates, steps)


def adadelta_in_place(
    loss: Callable[[], Tensor], rates: Sequence[tuple[Tensor, float]], steps: int
) -> None:
    """The same by Adadelta (arXiv:1212.5701), with torch's defaults."""
    _in_place(torch.optim.Adadelta, loss, rates, steps)


def _in_place(
    kind: Callable[..., torch.optim.Optimizer],
    loss: Callable[[], Tensor],
    rates: Sequence[tuple[Tensor, float]],
    steps: int,
) -> None:
    weights = [weight for weight, _ in rates]
    optimizer = kind([{"params": [weight], "lr": rate} for weight, rate in rates])
    for _ in range(steps):
        for weight, slope in zip(weights, _slopes(loss, weights), strict=True):
            weight.grad = slope
        optimizer.step()
        torch.clear_autocast_cache()
    for weight in weights:
        weight.grad = None


def _slopes(loss: Callable[[], Tensor], weights: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradient of a loss by weights that are leaves."""
    scale = scale_in_force(weights[0].device)
    with torch.enable_grad():
        slopes = torch.autograd.grad(loss() * scale, weights, materialize_grads=True)
    return slopes if scale == 1 else [slope / scale for slope in slopes]


def _func_gradient(loss: Callable[[Weights], Tensor], weights: Weights) -> Weights:
    gradients: Weights = torch.func.grad(loss)(weights)
    return gradients


def _plain_gradient(loss: Callable[[Weights], Tensor], weights: Weights) -> Weights:
    """The same by plain autograd: less memory and Python, and any module that autograd takes."""
    second_order = torch.is_grad_enabled()
    # Each weight is renamed: what one of them was made of (ProtoMAML's head) is then no use of
    # another.
    inside = {
        name: (
            weight.view_as(weight)
            if second_order and weight.requires_grad
            else weight.detach().requires_grad_()
        )
        for name, weight in weights.items()
    }
    with torch.enable_grad():
        value = loss(inside)
        if not value.requires_grad:
            return {name: torch.zeros_like(weight) for name, weight in inside.items()}
        slopes = torch.autograd.grad(
            value, list(inside.values()), create_graph=second_order, materialize_grads=True
        )
    return dict(zip(inside, slopes, strict=True))


def hessian_product(loss: Callable[[Tensor], Tensor], at: Tensor) -> Callable[[Tensor], Tensor]:
    """The function v -> H v (n,) for the Hessian H of a scalar `loss` of a vector `at` (n,).

    H is symmetric: the pullback of the gradient is the product with it, and runs forward once for
    all products.
    """
    if is_transformed():
        pullback = torch.func.vjp(torch.func.grad(loss), at)[1]

        def product(v: Tensor) -> Tensor:
            result: Tensor = pullback(v)[0]
            return result

        return product
    at = at.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(at), at, create_graph=True)
    if not slope.requires_grad:  # the loss is linear
        return torch.zeros_like
    return lambda v: torch.autograd.grad(slope, at, v, retain_graph=True, materialize_grads=True)[0]


def clipped(gradients: Weights, largest: float) -> Weights:
    """The gradients, scaled down where their common norm exceeds `largest`; differentiable."""
    squares = torch.stack([gradient.square().sum() for gradient in gradients.values()]).sum()
    # The root of 0 has no derivative: a zero gradient takes the other branch, with a harmless 1
    # under the root.
    norm = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt()
    scale = torch.where(squares > largest**2, largest / norm, torch.ones_like(norm))
    return {name: scale * gradient for name, gradient in gradients.items()}


def with_gradient(value: Tensor, weights: Weights, gradient: Weights) -> Tensor:
    """A scalar with this `value`, and this `gradient` with respect to `weights`, however made.

    For updates that are no loss's derivative (Reptile, implicit MAML): they then go through
    `manual_backward` like every other meta-gradient, so that ranks, precision and clipping see
    them.
    """
    slope = sum((gradient[name].detach() * (w - w.detach())).sum() for name, w in weights.items())
    return value.detach() + slope
