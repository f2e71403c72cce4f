"""A function of one episode, mapped over a meta-batch: by loop, by vmap, compiled."""

from collections.abc import Callable
from operator import itemgetter
from typing import Any, TypeVar

import torch
from torch import nn

from fewshot.engine.compiling.compiler import Compile, Compiler
from fewshot.engine.modes import How, transformed
from fewshot.episodes.types import flatten, map_tensors, stack, unflatten
from fewshot.errors import FewshotError
from fewshot.functional.modes import differentiable

Result = TypeVar("Result")


def map_episodes(
    function: Callable[..., Result],
    how: How = "loop",
    *,
    chunk: int | None = None,
    compile: Compile = False,
    module: nn.Module | None = None,
) -> Callable[..., Result]:
    """``function`` of one episode as a function of B, whose results are stacked.

    The result is the same however it is run. Keep what is returned: it holds what was compiled.

    ```python
    >>> def best_line(x, y):  # of one episode: x, y (n,)
    ...     return (x * y).sum() / x.square().sum()
    >>> x = torch.tensor([[1.0, 2.0], [1.0, 3.0]])
    >>> map_episodes(best_line, "vmap")(x, torch.tensor([[2.0], [5.0]]) * x)
    tensor([2., 5.])
    ```

    Args:
        function: takes trees of tensors (tuples, lists, dicts; an `Episode`) and gives one.
        how: `loop` runs one episode after another, `vmap` all at once: faster for small networks,
            and on accelerators. Recurrent networks take the loop alone.
        chunk: of `vmap`, how many at once; None means all.
        compile: trace the whole episode, inner gradients included, and compile it: faster after a
            first call of up to minutes, differentiable once. `capture` records it for a CUDA GPU.
        module: what `function` reads, where it is compiled: a change of anything but its weights'
            values compiles anew. What else `function` reads is kept as it was at the first call;
            tensors that change are to be arguments.

    Raises:
        FewshotError: `compile` without `module`, or a chunk below 1; later, what has no axis B.
    """
    if compile and module is None:
        raise FewshotError("compile needs to know the module that is read; give module=")
    if chunk is not None and chunk < 1:
        raise FewshotError(f"chunk is {chunk}; set chunk >= 1")
    compiler = Compiler("capture" if compile == "capture" else "inductor") if compile else None

    def inside(*args: Any) -> Any:
        with differentiable():
            return function(*args)

    def run(args: Any) -> Any:
        outside = transformed.set(compiler is not None)
        try:
            return inside(*args) if how == "loop" else _vmapped(inside, args)
        finally:
            transformed.reset(outside)

    def maybe_compiled(args: Any) -> Any:
        if compiler is None or module is None:
            return run(args)
        return compiler(run, args, (how, compiler.dependencies.number(module)))

    def mapped(*args: Any) -> Result:
        size = _size(args)
        if how == "loop":
            stacked: Result = stack([maybe_compiled(_of(args, i)) for i in range(size)])
            return stacked
        step = chunk or max(size, 1)
        starts = range(0, size, step)
        joined: Result = _joined([maybe_compiled(_of(args, slice(i, i + step))) for i in starts])
        return joined

    return mapped


def _vmapped(function: Callable[..., Any], args: Any) -> Any:
    leaves, structure = flatten(args)  # torch's transforms take no None, which may be in a tree
    return torch.func.vmap(
        lambda *leaves: function(*unflatten(structure, leaves)), randomness="different"
    )(*leaves)


def _of(args: Any, index: int | slice) -> Any:
    return map_tensors(itemgetter(index), args)


def _size(args: Any) -> int:
    """B, of every tensor's first axis."""
    leaves, _ = flatten(args)
    sizes = {len(leaf) if leaf.dim() else None for leaf in leaves}
    if len(sizes) != 1 or sizes & {None, 0}:
        raise FewshotError(
            f"episodes have first axes of {', '.join(map(str, sizes)) or 'no tensor'}; give every"
            " tensor a first axis of one length, B"
        )
    (size,) = sizes
    assert size is not None
    return size


def _joined(chunks: list[Any]) -> Any:
    rows = [flatten(chunk) for chunk in chunks]
    columns = zip(*(leaves for leaves, _ in rows), strict=True)
    return unflatten(rows[0][1], [torch.cat(column) for column in columns])
