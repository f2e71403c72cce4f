"""What torch's compiler makes of batch normalisation and max-pooling.

On a CPU, where it lays out all maps (n, C, H, W) channels last, forms that it turns into faster
loops than its own. There a sum over (n, H, W) goes through all the maps once for every few
channels, the place of a window's largest value is computed in integers of 64 bits, and the
normalised maps and the gradient of the pooled ones lie in memory, which costs more than to compute
them. Here sums go row by row, which stays in the cache; places are compared as floating-point
numbers, as many at once as values; and those maps are never whole. Of everything else its own
forms, but for the derivative of max-pooling (`unpooled`).
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.places import Windows

aten = torch.ops.aten
NORM = internal("torch.ops.aten._native_batch_norm_legit.no_stats")
NORM_BACKWARD = aten.native_batch_norm_backward.default


class Table(dict[Any, Callable[..., Any]]):
    """For an operation, the function that says it in simpler ones.

    It is pickled by name: the table is part of the key by which the compiler finds a graph in its
    cache, and most of the functions in it cannot be pickled. Without, nothing that was compiled
    would be found again.
    """

    def __reduce__(self) -> tuple[Callable[[], "Table"], tuple[()]]:
        """How to make it again."""
        return table, ()


def table() -> Table:
    """The compiler's table of decompositions, with ours."""
    usual: dict[Any, Callable[..., Any]] = internal(
        "torch._inductor.decomposition.select_decomp_table"
    )()
    ours: dict[Any, Callable[..., Any]] = {
        NORM: _for_maps(normalised, usual[NORM], maps=0, training=3),
        NORM_BACKWARD: _for_maps(normalised_backward, usual[NORM_BACKWARD], maps=1, training=7),
        aten.max_pool2d_with_indices_backward.default: unpooled,
    }
    return Table({**usual, **ours})


def expansion() -> Any:
    """A pass of the compiler that says the operations of `fewshot.engine.places` in simpler ones.

    The `table` would say them too early: before it is settled what the backward pass is given. That
    would be, as fewer bytes, a mask of each value in a window and not the place of the largest, and
    masks take a CPU long to read.
    """
    base: type[Any] = internal("torch._inductor.custom_graph_pass.CustomGraphPass")
    hash_of = internal("torch._inductor.custom_graph_pass.get_hash_for_files")

    class Expansion(base):  # type: ignore[misc]  # imported here: it takes seconds
        def __call__(self, graph: torch.fx.Graph) -> None:
            expand(graph)

        def uuid(self) -> bytes:
            # part of the key of the compiler's cache
            return bytes(hash_of((__file__,)))

    return Expansion()


def expand(graph: torch.fx.Graph) -> None:
    """Put simpler operations in the place of those of `fewshot.engine.places`."""
    register = internal("torch._inductor.pattern_matcher.register_graph_pattern")
    calls_of = internal("torch._inductor.pattern_matcher.CallFunctionVarArgs")
    patterns = internal("torch._inductor.pattern_matcher.PatternMatcherPass")()
    operations = torch.ops.fewshot
    for operation, form in (
        (operations.pool, pooled),
        (operations.scatter, scattered),
        (operations.gather, gathered),
    ):

        def replace(match: Any, *args: Any, form: Callable[..., Any] = form) -> None:
            *tensors, flat = args
            match.replace_by_example(
                lambda *tensors: form(*tensors, flat), tensors, run_functional_passes=False
            )

        register(calls_of(operation.default), pass_dict=patterns)(replace)
    patterns.apply(graph)


def _for_maps(
    ours: Callable[..., Any], usual: Callable[..., Any], maps: int, training: int
) -> Callable[..., Any]:
    """`ours` for maps (n, C, H, W) on a CPU by their own statistics, else the `usual` form.

    The maps are the argument at position `maps`; that at position `training` says whether the
    statistics are theirs.
    """

    def form(*args: Any, **kwargs: Any) -> Any:
        fits = args[maps].dim() == 4 and args[maps].device.type == "cpu" and args[training]
        return (ours if fits else usual)(*args, **kwargs)

    return form


def normalised(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation by batch statistics, with their mean (C,) and inverse deviation (C,).

    The variance is that within rows of pixels and that between them: no difference of large
    numbers. The arguments are those of ``aten._native_batch_norm_legit.no_stats``.
    """
    x = _rows(input)
    width, count = x.shape[1], input.numel() // input.shape[1]
    sums = x.sum(1)  # (n H, C)
    means = sums * (1 / width)
    within = (x - means[:, None]).square().sum(1)
    mean = sums.sum(0) * (1 / count)
    variance = (within.sum(0) + width * (means - mean).square().sum(0)) * (1 / count)
    inverse = torch.rsqrt(variance + eps)
    scale = inverse if weight is None else inverse * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    scale, shift = _held(scale, shift)
    return _maps(x * scale + shift, input).to(input.dtype), mean, inverse


def normalised_backward(
    grad_out: Tensor,
    input: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor,
    save_invstd: Tensor,
    train: bool,
    eps: float,
    output_mask: Sequence[bool],
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The derivative of `normalised`.

    Its arguments are those of ``aten.native_batch_norm_backward``.
    """
    x, gradient = _rows(input), _rows(grad_out)
    count = input.numel() // input.shape[1]
    total = gradient.sum(1).sum(0)
    along = (gradient * (x - save_mean)).sum(1).sum(0) * save_invstd  # along the normalised input
    scale = save_invstd if weight is None else save_invstd * weight
    slope = along * save_invstd * scale * (1 / count)
    shift = save_mean * slope - total * scale * (1 / count)
    scale, slope, shift = _held(scale, slope, shift)
    result = _maps(gradient * scale - x * slope + shift, input).to(input.dtype)
    dtype = input.dtype if weight is None else weight.dtype
    return (
        result,
        along.to(dtype) if output_mask[1] else None,
        total.to(dtype) if output_mask[2] else None,
    )


def pooled(input: Tensor, flat: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The largest value of each window (n, C, h, w) and its place there.

    Of several as large, of the first.
    """
    windows = Windows.of(flat)
    views = _views(input, windows)
    largest = reduce(torch.maximum, views.values())
    (last, _), *others = reversed(views.items())
    place = torch.full_like(largest, last, dtype=torch.float32)
    for number, view in others:
        place = torch.where(view == largest, torch.full((), number, dtype=torch.float32), place)
    return _maps(largest, input), _maps(place.to(windows.places), input)


def scattered(values: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
    """Each window's value (n, C, h, w) where its largest came from, else zero (n, C, H, W)."""
    windows = Windows.of(flat)
    (height, width), (down, right) = windows.size, windows.kernel
    # A window's pixels (n, h, down, w, right, C) at once: stacked one by one, they would be maps in
    # memory.
    value = values.permute(0, 2, 3, 1)[:, :, None, :, None]
    place = places.permute(0, 2, 3, 1)[:, :, None, :, None].to(torch.float32)
    rows, columns = (torch.arange(size, dtype=torch.float32) for size in (down, right))
    pixels = torch.where(place == rows.view(-1, 1, 1, 1) * width + columns.view(-1, 1), value, 0.0)
    pixels = pixels.flatten(3, 4).flatten(1, 2)
    h, w = pixels.shape[1:3]
    return _maps(F.pad(pixels, (0, 0, 0, width - w, 0, height - h)).flatten(0, 1), places)


def gathered(maps: Tensor, places: Tensor, flat: Sequence[int]) -> Tensor:
    """What `maps` (n, C, H, W) hold where each window's largest value came from (n, C, h, w)."""
    place = _rows(places)
    (_, result), *others = reversed(_views(maps, Windows.of(flat)).items())
    for number, view in others:
        result = torch.where(place == number, view, result)
    return _maps(result, places)


def _held(*channels: Tensor) -> Tensor:
    """These values (C,), stacked: what is stacked, a compiler on a CPU computes once and keeps.

    It would else compute them anew in each loop that reads them; and what is made of them is then
    simple enough for it to be computed where it is read, without maps in memory between.
    """
    return torch.stack(channels)


def _rows(maps: Tensor) -> Tensor:
    """Maps (n, C, H, W) as they will lie in memory, row by row (n H, W, C), at least in float32.

    Not (n, H, W, C): the compiler takes all that has four axes for maps, the second for channels,
    and lays it out so.
    """
    return maps.permute(0, 2, 3, 1).flatten(0, 1).to(torch.promote_types(maps.dtype, torch.float32))


def _maps(rows: Tensor, like: Tensor) -> Tensor:
    """The maps (n, C, H, W) of such rows, n and layout those of `like`: the trace counts on it."""
    pixels = rows.reshape(len(like), -1, *rows.shape[1:])
    return pixels.permute(0, 3, 1, 2).contiguous(memory_format=_format(like))


def _format(maps: Tensor) -> torch.memory_format:
    found: torch.memory_format = internal("torch._prims_common.suggest_memory_format")(maps)
    return found


def _views(maps: Tensor, windows: Windows) -> dict[int, Tensor]:
    """By place in the window, the values (n h, w, C) there in each, from first place to last."""
    (height, width), (down, right) = windows.size, windows.kernel
    h, w = height // down, width // right
    pixels = maps.permute(0, 2, 3, 1)[:, : h * down, : w * right]
    pixels = pixels.reshape(maps.shape[0], h, down, w, right, maps.shape[1])
    return {
        i * width + j: pixels[:, :, i, :, j].flatten(0, 1)
        for i in range(down)
        for j in range(right)
    }


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
    """The derivative (n, C, H, W) of max-pooling, as what each pixel takes rather than gets added.

    torch's own is one addition into memory after another, which its compiler takes apart badly;
    what is written here becomes a loop over the pixels. Windows that overlap stay with torch's. The
    arguments are those of ``aten.max_pool2d_with_indices_backward``.
    """
    if input.dim() != 4:
        return NotImplemented  # which leaves the operation as it is
    (n, channels, *size), (h, w) = input.shape, indices.shape[2:]
    # all but the first may hold one number
    arguments = size, kernel_size, stride or kernel_size, padding, dilation
    pairs = [(pair[0], pair[-1]) for pair in arguments]
    windows = Windows(pairs[0], pairs[1], pairs[2], pairs[3], pairs[4], ceil_mode)
    if not windows.apart:
        return NotImplemented
    down, right = windows.kernel
    places = indices - windows.first(indices)
    zero = torch.zeros_like(gradient)

    def row(i: int) -> Tensor:
        taken = [torch.where(places == i * size[1] + j, gradient, zero) for j in range(right)]
        return torch.stack(taken, -1).reshape(n, channels, h, w * right)

    rows = [row(i) for i in range(down)]
    pixels = torch.stack(rows, 3).reshape(n, channels, h * down, w * right)
    pixels = F.pad(pixels, (0, size[1] - w * right, 0, size[0] - h * down))
    return pixels.contiguous(memory_format=_format(input))
