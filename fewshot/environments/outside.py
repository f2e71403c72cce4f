"""Calls of what is not torch, such as a simulator, that may stand inside of `torch.func.vmap`."""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor

Outside: TypeAlias = Callable[..., tuple[Tensor, ...]]
"""Takes tensors (n, ...), gives tensors (n, ...); row i of what it gives is of row i alone."""


def outside(function: Outside, *rows: Tensor) -> tuple[Tensor, ...]:
    """``function(*rows)`` without a graph; under vmap one call with the rows of all episodes."""
    found: tuple[Tensor, ...] = _Call.apply(function, *rows)
    return found


class _Call(torch.autograd.Function):
    @staticmethod
    def forward(function: Outside, *rows: Tensor) -> tuple[Tensor, ...]:
        return function(*rows)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Outside, *rows: Tensor) -> tuple[Any, Any]:
        size = info.batch_size
        together = [
            row.expand(size, *row.shape) if axis is None else row.movedim(axis, 0)
            for row, axis in zip(rows, in_dims[1:], strict=True)
        ]
        found = outside(function, *(row.flatten(0, 1) for row in together))
        apart = tuple(part.view(size, -1, *part.shape[1:]) for part in found)
        return apart, (0,) * len(apart)
