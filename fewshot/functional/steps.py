"""Gradient steps that are differentiated through: weights in, weights out."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from fewshot.engine.compiling.regions import end_region
from fewshot.engine.inner_loop import Weights, step_gradient
from fewshot.engine.recomputation import recomputed
from fewshot.errors import FewshotError
from fewshot.functional.rules import SGD, Rate, Rule, State
from fewshot.functional.torch_rules import rule_of

Loss = Callable[[Weights], Tensor]
"""A scalar of the weights."""


def gradient_steps(
    loss: Loss,
    weights: Mapping[str, Tensor],
    rule: Rule | Optimizer | Rate,
    steps: int,
    *,
    first_order: bool = False,
    clip: float | None = None,
    recompute: Sequence[Tensor] | None = None,
) -> Iterator[Weights]:
    """Yield the weights before and after each of `steps` steps; `*_, last =` takes the last ones.

    The last ones are a function of the first ones, and of all that `loss` and `rule` read, which
    autograd differentiates. Nothing is changed in place.

    ```python
    >>> import torch
    >>> start = {"w": torch.tensor(1.0, requires_grad=True)}
    >>> _, first, second = gradient_steps(lambda now: now["w"] ** 2, start, rule=0.25, steps=2)
    >>> first["w"].item(), second["w"].item()
    (0.5, 0.25)
    >>> torch.autograd.grad(second["w"], start["w"])
    (tensor(0.2500),)
    ```

    Args:
        loss: a scalar of the weights.
        weights: where the steps start, such as `weights_of` gives.
        rule: what a gradient does to the weights: `SGD`, `Adam`, `AdamW`, `RMSprop`; an optimizer
            of torch, whose rule and numbers are taken, and neither its state nor a scheduler's; or
            the learning rate of plain descent.
        steps: how many.
        first_order: take the gradients as constants: cheaper, and no second derivatives.
        clip: largest norm of a step's gradient over all weights; None leaves it as it is.
        recompute: not None keeps the weights of each step alone in memory, and computes the rest
            again in the backward pass; names the tensors with a gradient that `loss` and `rule`
            read besides the weights. Not under ``torch.vmap``.

    Raises:
        FewshotError: `steps` is negative, a rule that cannot be differentiated through, or one that
            does not fit the weights.
    """
    if steps < 0:
        raise FewshotError(f"steps is {steps}; set steps >= 0")
    weights = dict(weights)
    rule = _rule(rule, weights)
    state = rule.start(weights)
    yield weights
    for number in range(steps):
        step = functools.partial(_step, loss, rule, number, first_order, clip)
        end_region()
        weights, state = (
            step(weights, state) if recompute is None else _spared(step, weights, state, recompute)
        )
        end_region()
        yield weights


def gradient_step(
    loss: Loss,
    weights: Mapping[str, Tensor],
    rule: Rule | Optimizer | Rate,
    state: State | None = None,
    number: int = 0,
    *,
    first_order: bool = False,
    clip: float | None = None,
) -> tuple[Weights, State]:
    """The weights and the state after one step, for loops whose loss differs from step to step.

    ```python
    >>> import torch
    >>> weights, state = {"w": torch.tensor(1.0, requires_grad=True)}, None
    >>> for number, target in enumerate([3.0, 5.0]):
    ...     weights, state = gradient_step(
    ...         lambda now: (now["w"] - target) ** 2, weights, SGD(0.25), state, number
    ...     )
    ...     print(weights["w"].item())
    2.0
    3.5
    ```

    Args:
        loss: a scalar of the weights.
        weights: before.
        rule: as in `gradient_steps`.
        state: what the last step gave; None at the first.
        number: of the step, 0 at the first.
        first_order: take the gradient as constant.
        clip: largest norm of the gradient over all weights; None leaves it as it is.

    Raises:
        FewshotError: as in `gradient_steps`; or a later step has no state.
    """
    if number and state is None:
        raise FewshotError(f"step {number} has no state; give what step {number - 1} returned")
    weights = dict(weights)
    rule = _rule(rule, weights)
    state = rule.start(weights) if state is None else state
    return _step(loss, rule, number, first_order, clip, weights, state)


def _rule(rule: Rule | Optimizer | Rate, weights: Weights) -> Rule:
    if isinstance(rule, Rule):
        return rule
    return rule_of(rule, weights) if isinstance(rule, Optimizer) else SGD(rule)


def _step(
    loss: Loss,
    rule: Rule,
    number: int,
    first_order: bool,
    clip: float | None,
    weights: Weights,
    state: State,
) -> tuple[Weights, State]:
    gradients = step_gradient(loss, weights, first_order, clip)
    return rule.update(number, weights, gradients, state)


def _spared(
    step: Callable[[Weights, State], tuple[Weights, State]],
    weights: Weights,
    state: State,
    others: Sequence[Tensor],
) -> tuple[Weights, State]:
    """A step whose activations the backward pass computes again."""

    def flat(tensors: dict[Any, Tensor]) -> dict[Any, Tensor]:
        return _joined(*step(*_parted(tensors)))

    return _parted(recomputed(flat, _joined(weights, state), others))


def _joined(weights: Weights, state: State) -> dict[Any, Tensor]:
    """Weights and state as one dict, by the slot of the state ("" for the weights) and the name."""
    slots = {"": weights, **state}
    return {(slot, name): value for slot, of in slots.items() for name, value in of.items()}


def _parted(tensors: dict[Any, Tensor]) -> tuple[Weights, State]:
    slots: State = {}
    for (slot, name), value in tensors.items():
        slots.setdefault(slot, {})[name] = value
    return slots.pop(""), slots
