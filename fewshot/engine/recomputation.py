"""Recomputes an inner step's activations in the backward pass: less memory, more time.

``torch.utils.checkpoint`` would run each step three times, not twice: its hooks act on the step's
own gradient too.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fewshot.engine.modes import episode_modes

Named: TypeAlias = dict[str, Tensor]


def recomputed(step: Callable[[Named], Named], weights: Named, others: Sequence[Tensor]) -> Named:
    """``step(weights)``, of which only `weights` are kept for the backward pass.

    Args:
        step: a function of the weights; it is run twice, the second time in the backward pass under
            the same random numbers, precision and normalisation.
        weights: its argument.
        others: the tensors with a gradient that `step` reads besides.
    """
    names = list(weights)
    results: list[str] = []

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        after = step(dict(zip(names, tensors, strict=True)))
        results[:] = after
        return tuple(after.values())

    values = _Recomputed.apply(flat, len(names), *weights.values(), *others)
    return dict(zip(results, values, strict=True))


class _Recomputed(torch.autograd.Function):
    """The custom function behind `recomputed`."""

    @staticmethod
    def forward(
        ctx: Any, step: Callable[..., tuple[Tensor, ...]], count: int, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        """Run the step without a graph."""
        ctx.step, ctx.count = step, count
        ctx.save_for_backward(*tensors)
        ctx.device = tensors[0].device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device), torch.get_autocast_dtype(ctx.device)
        ctx.random = torch.get_rng_state()
        ctx.device_random = (
            None if ctx.device == "cpu" else torch.get_device_module(ctx.device).get_rng_state()
        )
        return step(*tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Run the step again, with a graph, and go back through it."""
        weights = [tensor.detach().requires_grad_() for tensor in ctx.saved_tensors[: ctx.count]]
        others = ctx.saved_tensors[ctx.count :]
        enabled, precision = ctx.autocast
        with ExitStack() as stack:
            stack.enter_context(
                torch.random.fork_rng(device_type=ctx.device if ctx.device != "cpu" else "cuda")
            )
            torch.set_rng_state(ctx.random)
            if ctx.device_random is not None:
                torch.get_device_module(ctx.device).set_rng_state(ctx.device_random)
            stack.enter_context(torch.enable_grad())
            stack.enter_context(torch.autocast(ctx.device, precision, enabled))
            stack.enter_context(episode_modes("loop"))
            after = ctx.step(*weights)
        return (
            None,
            None,
            *torch.autograd.grad(after, [*weights, *others], gradients, allow_unused=True),
        )
