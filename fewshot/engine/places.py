"""The place of the largest value in each window of a pooling, and what is made of it.

By torch's own kernels, for which places are made into indices part by part. What these kernels do
are operations of their own, `pool`, `scatter` and `gather`: a graph that is traced to be compiled
holds them by name, and `fewshot.engine.compiling.lowering` says what its compiler makes of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

Pair: TypeAlias = tuple[int, int]

INDEX_BYTES = 2**22
"""Bytes of indices at once on a CPU: in cache faster than torch's pooling, a whole batch slower."""


class Windows(NamedTuple):
    """The windows of a pooling over maps of `size` = (H, W) pixels.

    Their places are held in bytes, or, where compiled code of a CPU reads them, as floating-point
    numbers (`floats`): it takes several of these at once, and what it spends on bytes was two
    thirds of a pooling's derivative.
    """

    size: Pair
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool
    floats: bool = False

    @classmethod
    def of(cls, flat: Sequence[int]) -> "Windows":
        """The windows that `flat` are the numbers of."""
        size, kernel, stride, padding, dilation = ((flat[i], flat[i + 1]) for i in range(0, 10, 2))
        return cls(size, kernel, stride, padding, dilation, bool(flat[10]), bool(flat[11]))

    @property
    def flat(self) -> list[int]:
        """All numbers in their order: an operation of a graph takes lists of numbers."""
        return [
            *(number for pair in self[:5] for number in pair),
            int(self.ceil_mode),
            int(self.floats),
        ]

    @property
    def arguments(self) -> tuple[Pair, Pair, Pair, Pair, bool]:
        """What torch's operations want to know of them."""
        return self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode

    @property
    def apart(self) -> bool:
        """Whether windows lie side by side: each pixel in one, or in none at right and bottom."""
        alone = self.padding == (0, 0) and self.dilation == (1, 1) and not self.ceil_mode
        return alone and self.stride == self.kernel

    @property
    def places(self) -> torch.dtype:
        """The type that holds a window's first-to-last distance, in pixels of the flattened map."""
        if self.floats:
            return torch.float32
        (down, right), width = (
            ((k - 1) * d for k, d in zip(self.kernel, self.dilation, strict=True)),
            self.size[1],
        )
        return torch.uint8 if down * width + right < 256 else torch.int32

    def first(self, like: Tensor) -> Tensor:
        """The flattened map's index (h, w) of each window's first value; `like` is (n, C, h, w)."""
        rows, columns = (
            torch.arange(n, device=like.device) * step - pad
            for n, step, pad in zip(like.shape[2:], self.stride, self.padding, strict=True)
        )
        return rows[:, None] * self.size[1] + columns


@torch.library.custom_op("fewshot::pool", mutates_args=())
def pool(input: Tensor, flat: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The largest value of each window, and its place there; the windows as `Windows.flat`."""
    windows = Windows.of(flat)
    shapes = _pooled_shapes(torch.empty_like(input, device="meta"), flat)
    values, places = (torch.empty_like(shape, device=input.device) for shape in shapes)
    first = windows.first(values).to(windows.places)
    for part, indices in _memory(values):
        torch.ops.aten.max_pool2d_with_indices.out(
            input[part], *windows.arguments, out=values[part], indices=indices
        )
        # of bytes, both are modulo 256, and so is what is left: the place
        places[part].copy_(indices).sub_(first)
    return values, places


@torch.library.custom_op("fewshot::scatter", mutates_args=())
def scatter(values: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
    """Each window's value added to where its largest value came from: the derivative of `pool`."""
    windows = Windows.of(flat)
    result = _maps(values, places, windows)
    values = values.contiguous(memory_format=_layout(places))
    for part, indices in _indices(places, windows):
        torch.ops.aten.max_pool2d_with_indices_backward.grad_input(
            values[part], result[part], *windows.arguments, indices, grad_input=result[part]
        )
    return result


@torch.library.custom_op("fewshot::gather", mutates_args=())
def gather(maps: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
    """What stands where each window's largest value came from: the derivative of `scatter`."""
    result = torch.empty_like(places, dtype=maps.dtype)
    for part, indices in _indices(places, Windows.of(flat)):
        result[part] = maps[part].flatten(2).gather(2, indices.flatten(2)).view(indices.shape)
    return result


class _OfMaps(torch.autograd.Function):
    """A function of each of n maps alone: an axis that is vmapped over is one of more maps."""

    @classmethod
    def vmap(
        cls, info: Any, in_dims: tuple[int | None, ...], *args: Any
    ) -> tuple[Any, int | tuple[int, int]]:
        *tensors, flat = args
        stacked = [
            tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, in_dims, strict=False)  # of which `flat` has one too
        ]
        results = cls.apply(*(tensor.flatten(0, 1) for tensor in stacked), flat)
        axes = stacked[0].shape[:2]
        if isinstance(results, tuple):
            return tuple(result.unflatten(0, axes) for result in results), (0, 0)
        return results.unflatten(0, axes), 0


class _Pool(_OfMaps):
    """`pool` with its derivative, for autograd and the transforms of ``torch.func``."""

    @staticmethod
    def forward(input: Tensor, flat: Sequence[int]) -> tuple[Tensor, Tensor]:
        results: tuple[Tensor, Tensor] = pool(input, flat)
        return results

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Sequence[int]], output: tuple[Tensor, Tensor]
    ) -> None:
        ctx.flat = inputs[1]
        ctx.save_for_backward(output[1])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Scatter.apply(gradients[0], *ctx.saved_tensors, ctx.flat), None


class _ByPlaces(_OfMaps):
    """A linear function of its first argument, which needs the places alone for its derivative."""

    @staticmethod
    def setup_context(
        ctx: Any, inputs: tuple[Tensor, Tensor, Sequence[int]], output: Tensor
    ) -> None:
        ctx.flat = inputs[2]
        ctx.save_for_backward(inputs[1])


class _Scatter(_ByPlaces):
    @staticmethod
    def forward(values: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
        maps: Tensor = scatter(values, places, flat)
        return maps

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Gather.apply(gradients[0], *ctx.saved_tensors, ctx.flat), None, None


class _Gather(_ByPlaces):
    @staticmethod
    def forward(maps: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
        values: Tensor = gather(maps, places, flat)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return _Scatter.apply(gradients[0], *ctx.saved_tensors, ctx.flat), None, None


def pooled(input: Tensor, windows: Windows) -> Tensor:
    """The largest value (n, C, h, w) of each window of maps (n, C, H, W), by `pool`."""
    values: Tensor = _Pool.apply(input, windows.flat)[0]
    return values


# For a compiler, which differentiates the operations of a traced graph and asks for the shapes of
# their results.
pool.register_autograd(_Pool.backward, setup_context=_Pool.setup_context)
scatter.register_autograd(_Scatter.backward, setup_context=_Scatter.setup_context)
gather.register_autograd(_Gather.backward, setup_context=_Gather.setup_context)


@pool.register_fake
def _pooled_shapes(input: Tensor, flat: Sequence[int]) -> tuple[Tensor, Tensor]:
    windows = Windows.of(flat)
    values, indices = torch.ops.aten.max_pool2d_with_indices(input, *windows.arguments)
    return values, indices.to(windows.places)


@scatter.register_fake
def _(values: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
    return _maps(values, places, Windows.of(flat))


@gather.register_fake
def _(maps: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
    return torch.empty_like(places, dtype=maps.dtype)


def _layout(places: Tensor) -> torch.memory_format:
    channels_last = places.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _maps(values: Tensor, places: Tensor, windows: Windows) -> Tensor:
    """Memory for the maps (n, C, H, W) that these windows are of, laid out as the places are."""
    shape = (*values.shape[:2], *windows.size)
    return torch.empty(
        shape, dtype=values.dtype, device=values.device, memory_format=_layout(places)
    )


def _indices(places: Tensor, windows: Windows) -> Iterator[tuple[slice, Tensor]]:
    """Part by part of n maps, the indices of `places` in the flattened map.

    Each part takes the last one's memory.
    """
    first = windows.first(places)
    for part, indices in _memory(places):
        yield part, indices.copy_(places[part]).add_(first)


def _memory(like: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Part by part of n maps, memory for their indices, laid out like them.

    Each part takes the last one's.

    A part's indices take `INDEX_BYTES` on a CPU; elsewhere all maps are one part.
    """
    n = len(like)
    size = max(1, INDEX_BYTES * n // max(1, 8 * like.numel())) if like.device.type == "cpu" else n
    memory = torch.empty_like(like[:size], dtype=torch.int64)
    for start in range(0, n, size):
        part = slice(start, start + size)
        yield part, memory[: len(like[part])]
