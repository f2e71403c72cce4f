"""Gradient steps on a quadratic, where everything has a closed form (float64)."""

from typing import Any

import pytest
import torch
from torch import Tensor

from fewshot.engine.inner_loop import Weights, descend_in_place, gradient_steps, with_gradient

CURVATURE = torch.tensor([0.5, 2.0, 3.0], dtype=torch.float64)
START = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
LR, STEPS = 0.1, 3


def loss(weights: Weights) -> Tensor:
    """a w^2 / 2, so that a step multiplies w by 1 - lr a."""
    return (CURVATURE * weights["w"].square()).sum() / 2


def test_the_path_is_that_of_gradient_descent() -> None:
    start = {"w": START}
    path = list(gradient_steps(loss, start, LR, STEPS))
    assert len(path) == STEPS + 1
    assert path[0] is start
    for step, weights in enumerate(path):
        torch.testing.assert_close(
            weights["w"], (1 - LR * CURVATURE) ** step * START, rtol=1e-14, atol=0
        )


@pytest.mark.parametrize("first_order", [False, True])
def test_the_derivative_of_the_path(first_order: bool) -> None:
    start = START.clone().requires_grad_()
    *_, weights = gradient_steps(loss, {"w": start}, LR, STEPS, first_order)
    (gradient,) = torch.autograd.grad(weights["w"].sum(), start)
    # first order: every inner gradient is a constant, so that d w_K / d w_0 = 1
    expected = torch.ones_like(CURVATURE) if first_order else (1 - LR * CURVATURE) ** STEPS
    torch.testing.assert_close(gradient, expected, rtol=1e-14, atol=0)


class Doubled(torch.autograd.Function):
    """Twice its input, in the form ``torch.func`` refuses: with context, no `setup_context`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return 2 * value

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return 2 * gradient


def test_functions_that_only_autograd_can_differentiate_are_taken() -> None:
    apply: Any = Doubled.apply  # has no types

    def doubled(weights: Weights) -> Tensor:
        return loss({"w": apply(weights["w"])})

    start = START.clone().requires_grad_()
    *_, weights = gradient_steps(doubled, {"w": start}, LR, STEPS)
    (gradient,) = torch.autograd.grad(weights["w"].sum(), start)
    torch.testing.assert_close(gradient, (1 - 4 * LR * CURVATURE) ** STEPS, rtol=1e-14, atol=0)


def test_a_weight_that_is_made_of_another_is_a_variable_of_its_own() -> None:
    start = START.clone().requires_grad_()
    _, after = gradient_steps(
        lambda w: (w["w"] * w["made"]).sum(), {"w": start, "made": start.square()}, LR, 1
    )
    torch.testing.assert_close(after["w"], START - LR * START.square(), rtol=1e-14, atol=0)
    torch.testing.assert_close(after["made"], START.square() - LR * START, rtol=1e-14, atol=0)


def test_it_descends_where_gradients_are_off() -> None:
    with torch.no_grad():
        *_, weights = gradient_steps(loss, {"w": START.clone().requires_grad_()}, LR, STEPS)
    assert not weights["w"].requires_grad
    torch.testing.assert_close(
        weights["w"], (1 - LR * CURVATURE) ** STEPS * START, rtol=1e-14, atol=0
    )


def test_a_weight_that_the_loss_does_not_use_stays() -> None:
    *_, weights = gradient_steps(loss, {"w": START, "unused": torch.ones(2)}, LR, STEPS)
    assert torch.equal(weights["unused"], torch.ones(2))


def test_with_gradient_has_the_value_and_the_gradient_given() -> None:
    weights = {
        "a": torch.tensor([1.0, 2.0], requires_grad=True),
        "b": torch.tensor(3.0, requires_grad=True),
    }
    gradient = {"a": torch.tensor([5.0, -6.0]), "b": torch.tensor(7.0)}
    value = with_gradient(torch.tensor(0.25), weights, gradient)
    assert value.item() == 0.25
    torch.autograd.backward(value)
    for name, weight in weights.items():
        assert weight.grad is not None
        torch.testing.assert_close(weight.grad, gradient[name])


@pytest.mark.parametrize("precision", [None, torch.bfloat16, torch.float16])
def test_descent_in_place_is_that_of_new_weights_at_every_precision(
    precision: torch.dtype | None,
) -> None:
    generator = torch.Generator().manual_seed(0)
    draw = torch.float64 if precision is None else torch.float32
    x, start = (torch.randn(*n, generator=generator, dtype=draw) for n in ((6, 4), (3, 4)))
    labels = torch.arange(6) % 3

    def of(weight: Tensor) -> Tensor:
        logits = torch.nn.functional.linear(x, weight)
        return torch.nn.functional.cross_entropy(logits.to(draw), labels)

    changed, other = start.clone().requires_grad_(), torch.ones(2, requires_grad=True)
    with torch.autocast("cpu", precision, enabled=precision is not None):
        *_, expected = gradient_steps(
            lambda weights: of(weights["w"]), {"w": start}, 0.5, 4, first_order=True
        )
        descend_in_place(lambda: of(changed), [(changed, 0.5), (other, 0.5)], 4)
        # nothing is left of the weights as they were, cast
        assert torch.equal(of(changed), of(expected["w"]))
    assert torch.equal(changed, expected["w"])
    assert (changed - start).abs().max() > 1e-2
    assert torch.equal(other, torch.ones(2))  # without a part in the loss
