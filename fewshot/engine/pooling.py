"""Max-pooling that keeps less for the backward pass: a byte for each of its values.

torch's keeps its input, of which the backward pass reads nothing but the shape, and indices of 64
bits: in a Conv4 more than half of all that an inner loop holds. Here stays the place of the largest
value in its window (`fewshot.engine.places`). Values and derivatives of every order are torch's.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.engine.places import Pair, Windows, pooled
from fewshot.engine.rerouting import Function

LARGE = 2**23
"""Bytes of maps from which on it pays: they fill the memory, and a step is not visibly slower."""


def lean_pooling(traced: bool = False) -> Mapping[Function, Function]:
    """What `Rerouting` calls in place of ``max_pool2d``, which keeps less for its gradient.

    Not for code that is vmapped.

    Args:
        traced: the code inside is traced to be compiled: worth it is what
            `fewshot.engine.compiling.lowering` has a better form of.
    """
    return TRACED if traced else PLAIN


def max_pool2d(
    input: Tensor,  # the names and the order of F.max_pool2d
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    traced: bool = False,
) -> Any:
    """``F.max_pool2d``.

    Where `input` (n, C, H, W) is large and has a gradient, its graph holds a byte a value.

    Traced it holds four bytes a value, where the windows lie apart on maps of a CPU (see
    `lean_pooling`).
    """
    worth_it = traced or (torch.is_grad_enabled() and input.requires_grad and input.nbytes >= LARGE)
    if (
        worth_it
        and input.dim() == 4
        and input.device.type in ("cpu", "cuda")
        and not return_indices
    ):
        kernel = _pair(kernel_size)
        size = input.shape[2], input.shape[3]
        windows = Windows(
            size,
            kernel,
            _pair(stride or kernel),
            _pair(padding),
            _pair(dilation),
            ceil_mode,
            traced,
        )
        if not traced or (windows.apart and input.device.type == "cpu"):
            return pooled(input, windows)
    native: Callable[..., Any] = F.max_pool2d  # whose types want a literal for the last
    return native(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def _pair(value: int | Pair) -> Pair:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


PLAIN: Mapping[Function, Function] = {F.max_pool2d: max_pool2d}
TRACED: Mapping[Function, Function] = {F.max_pool2d: partial(max_pool2d, traced=True)}
