"""Max-pooling that keeps less for the backward pass: a byte for each of its values.

torch's keeps its input, of which the backward pass reads nothing but the shape, and indices of 64 bits: in a Conv4 more
than half of all that an inner loop holds. Here stays the place of the largest value in its window. Values and
derivatives of every order are torch's own, by torch's own kernels; places are made into indices part by part.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.nn.modules.utils import _pair  # what torch's own pooling layers read their arguments with
from torch.overrides import TorchFunctionMode

Pair: TypeAlias = tuple[int, int]

LARGE = 2**24
"""Bytes of maps from which on it is worth it: as fast as torch's pooling or faster, and what fills the memory."""

INDEX_BYTES = 2**22
"""Bytes of indices at once on a CPU: within its cache faster than torch's pooling, a whole batch at once slower."""


class Windows(NamedTuple):
    """The windows of a pooling over maps of `size` = (H, W) pixels."""

    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool

    @property
    def places(self) -> torch.dtype:
        """What holds the distance of a window's last value from its first, in pixels of the flattened map."""
        (down, right), width = ((k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)), self.size[1]
        return torch.uint8 if down * width + right < 256 else torch.int32

    def first(self, like: Tensor) -> Tensor:
        """The index (h, w) in the flattened map of the first value of each window of `like` (n, C, h, w)."""
        rows, columns = (
            torch.arange(n, device=like.device) * step - pad
            for n, step, pad in zip(like.shape[2:], self.stride, self.padding, strict=True)
        )
        return rows[:, None] * self.size[1] + columns


class LeanPooling(TorchFunctionMode):
    """Inside, ``max_pool2d`` of large maps keeps less for their gradient. Not for code that is traced or vmapped."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Reroute max-pooling; let everything else through."""
        return (max_pool2d if func is F.max_pool2d else func)(*args, **(kwargs or {}))


def max_pool2d(
    input: Tensor,  # the names and the order of F.max_pool2d
    kernel_size: int | Pair,
    stride: int | Pair | None = None,
    padding: int | Pair = 0,
    dilation: int | Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """``F.max_pool2d``; where `input` (n, C, H, W) is large and has a gradient, its graph holds a byte a value."""
    worth_it = torch.is_grad_enabled() and input.requires_grad and input.nbytes >= LARGE
    if return_indices or not worth_it or input.dim() != 4 or input.device.type not in ("cpu", "cuda"):
        native: Callable[..., Any] = F.max_pool2d  # whose types want a literal for the last
        return native(input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    kernel = _pair(kernel_size)
    size = input.shape[2], input.shape[3]
    windows = Windows(size, kernel, _pair(stride or kernel), _pair(padding), _pair(dilation), ceil_mode)
    return _Pool.apply(input, windows)[0]


def unpooled(
    gradient: Tensor,
    input: Tensor,
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Any:
    """For a compiler: the derivative (n, C, H, W) of max-pooling, as what each pixel takes rather than gets added.

    torch's own is one addition into memory after another, which its compiler takes apart badly; what is written here
    becomes a loop over the pixels. Windows that overlap stay with torch's. The arguments are those of
    ``aten.max_pool2d_with_indices_backward``.
    """
    kernel = (kernel_size[0], kernel_size[-1])
    step = (stride[0], stride[-1]) if stride else kernel
    apart = step == kernel and not any(padding) and all(d == 1 for d in dilation) and not ceil_mode
    if not apart or input.dim() != 4:
        return NotImplemented  # which leaves the operation as it is
    (n, channels, *size), (down, right) = input.shape, kernel
    h, w = indices.shape[2:]
    windows = Windows((size[0], size[1]), kernel, kernel, (0, 0), (1, 1), ceil_mode)
    places = indices - windows.first(indices)
    zero = torch.zeros_like(gradient)
    rows = [
        torch.stack([torch.where(places == i * size[1] + j, gradient, zero) for j in range(right)], -1)
        .reshape(n, channels, h, w * right)
        for i in range(down)
    ]  # fmt: skip
    pixels = torch.stack(rows, 3).reshape(n, channels, h * down, w * right)
    pixels = F.pad(pixels, (0, size[1] - w * right, 0, size[0] - h * down))
    return pixels.contiguous(memory_format=suggest_memory_format(input))


class _Pool(torch.autograd.Function):
    """The largest value of each window, and its place there."""

    @staticmethod
    def forward(input: Tensor, windows: Windows) -> tuple[Tensor, Tensor]:
        values: list[Tensor] = []
        places: list[Tensor] = []
        for part in _parts(len(input), 8 * input.numel() // math.prod(windows.stride), input.device):
            largest, indices = torch.ops.aten.max_pool2d_with_indices(input[part], *windows[1:])
            if not values:
                first = windows.first(indices)
            values.append(largest)
            places.append(indices.sub_(first).to(windows.places))
        return _joined(values), _joined(places)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Windows], output: tuple[Tensor, Tensor]) -> None:
        ctx.windows = inputs[1]
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Scatter.apply(gradients[0], *ctx.saved_tensors, ctx.windows), None


class _ByPlaces(torch.autograd.Function):
    """A linear function of its first argument, which needs the places alone for its derivative."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Windows], output: Tensor) -> None:
        ctx.windows = inputs[2]
        ctx.save_for_backward(inputs[1])


class _Scatter(_ByPlaces):
    """Each window's value added to where its largest value came from: the derivative of `_Pool`."""

    @staticmethod
    def forward(values: Tensor, places: Tensor, windows: Windows) -> Tensor:
        channels_last = places.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        values = values.contiguous(memory_format=layout)
        shape = (*values.shape[:2], *windows.size)
        result = torch.empty(shape, dtype=values.dtype, device=values.device, memory_format=layout)
        for part, indices in _indices(places, windows):
            torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
                values[part], result[part], *windows[1:], indices, grad_input=result[part]
            )
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Gather.apply(gradients[0], *ctx.saved_tensors, ctx.windows), None, None


class _Gather(_ByPlaces):
    """What stands where each window's largest value came from: the derivative of `_Scatter`."""

    @staticmethod
    def forward(maps: Tensor, places: Tensor, windows: Windows) -> Tensor:
        result = torch.empty_like(places, dtype=maps.dtype)
        for part, indices in _indices(places, windows):
            result[part] = maps[part].flatten(2).gather(2, indices.flatten(2)).view(indices.shape)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Scatter.apply(gradients[0], *ctx.saved_tensors, ctx.windows), None, None


def _indices(places: Tensor, windows: Windows) -> Iterator[tuple[slice, Tensor]]:
    """Part by part of n maps, the indices of `places` in the flattened map; each part takes the last one's memory."""
    first = windows.first(places)
    memory: Tensor | None = None
    for part in _parts(len(places), 8 * places.numel(), places.device):
        some = places[part]
        memory = torch.empty_like(some, dtype=torch.int64) if memory is None else memory[: len(some)]
        yield part, memory.copy_(some).add_(first)


def _parts(n: int, index_bytes: int, device: torch.device) -> Iterator[slice]:
    """Slices of n maps, whose indices of `index_bytes` in all go through in pieces."""
    size = max(1, INDEX_BYTES * n // max(1, index_bytes)) if device.type == "cpu" else n
    for start in range(0, n, size):
        yield slice(start, start + size)


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if len(parts) > 1 else parts[0]
