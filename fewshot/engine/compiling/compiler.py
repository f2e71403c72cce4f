"""Compiles the function of one episode, inner gradients included, still differentiable.

``torch.compile`` cannot differentiate twice through a compiled forward pass. So the function is
first traced whole: the inner gradients become plain operations of one flat graph, and that graph
has first derivatives like any other. Tracing sees operations, not Python: any network,
normalisation mode and learner passes through it.
"""

import warnings
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from fewshot.engine.compiling import lowering
from fewshot.engine.compiling.dependencies import Dependencies
from fewshot.engine.compiling.regions import compiled_by_region
from fewshot.engine.compiling.torch_internals import internal, warn_if_untested
from fewshot.episodes.types import flatten, unflatten
from fewshot.errors import FewshotError

Result = TypeVar("Result")
Graph: TypeAlias = Callable[..., Sequence[Tensor]]
"""A function of tensors to tensors."""
Compile: TypeAlias = bool | Literal["capture"]
"""How episodes are compiled: not at all, by torch's compiler, or by capture in a CUDA graph."""


class Compiler:
    """Compiles functions of tensors, once for each key and each set of shapes.

    Args:
        backend: what `torch.compile` compiles with; `capture` compiles nothing, but records what
            the function starts on a GPU, which is then started again as a whole. Of a captured
            function one call's backward pass has to end before the next call.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend
        self.dependencies = Dependencies()
        self._compiled: dict[Hashable, tuple[Graph, Any]] = {}
        self._copied: set[int] = set()  # the parameters whose gradients are copied

    @property
    def captures(self) -> bool:
        """Whether each call writes over what the last one kept for its backward pass."""
        return self.backend == "capture"

    def __reduce__(self) -> tuple[type["Compiler"], tuple[str]]:
        """Copies begin empty: a compiled function reads its own network's parameters."""
        return Compiler, (self.backend,)

    def __call__(self, function: Callable[[Any], Result], arguments: Any, key: Hashable) -> Result:
        """``function(arguments)``, compiled, with its gradient by the parameters that it reads.

        Args:
            function: takes and gives trees of tensors.
            arguments: a tree of tensors.
            key: all that the function's operations depend on besides the shapes and the precision:
                what `dependencies` says of the module that it belongs to.

        Raises:
            FewshotError: the compiler fails, for example because the machine has no C++ compiler.
        """
        tensors, tree = flatten(arguments)
        device = tensors[0].device.type
        # The graph holds its own casts, so that it runs outside of autocast and is another for each
        # precision.
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        shapes = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        modes = precision, torch.get_default_dtype(), torch.is_grad_enabled()
        key = key, modes, shapes, str(tree)
        new = key not in self._compiled
        try:
            # The first call compiles.
            with (
                internal("torch._dynamo.config.patch")(optimize_ddp=False),
                _without_a_false_warning() if new else nullcontext(),
            ):
                if new:
                    self._compiled[key] = self._make(function, tensors, tree)
                    self.dependencies.settle()
                graph, result_tree = self._compiled[key]
                with torch.autocast(device, enabled=False):
                    leaves = graph(*tensors)
        except internal("torch._dynamo.exc.TorchDynamoException") as error:
            raise FewshotError(
                f"compile: true does not work here ({_reason(error)}); set compile: false"
            ) from error
        result: Result = unflatten(result_tree, list(leaves))
        return result

    def _make(
        self, function: Callable[[Any], Any], tensors: list[Tensor], tree: Any
    ) -> tuple[Graph, Any]:
        """The function, compiled, and the tree that its results are the leaves of."""
        warn_if_untested()
        if not self.captures:
            rank_zero_info(
                "Compiling the inner loop: minutes the first time on a machine, then seconds from"
                f" its cache{self._what_changed()}"
            )
        elif not _on_gpu(tensors):
            device = tensors[0].device.type
            raise FewshotError(
                f"compile: capture needs a CUDA GPU, and this runs on {device}; set compile: true"
            )
        graph, result_tree = _traced(function, tensors, tree)
        if self.captures:
            compiled = _captured(graph, tensors)
        else:
            backend: Any = _inductor if self.backend == "inductor" else self.backend
            whole: Any = partial(torch.compile, backend=backend, fullgraph=True, dynamic=False)
            compiled = whole(graph) if _on_gpu(tensors) else compiled_by_region(graph, whole)
        if not _on_gpu(tensors):
            return compiled, result_tree
        self._copy_gradients(graph)
        return lambda *tensors: [leaf.clone() for leaf in compiled(*tensors)], result_tree

    def _what_changed(self) -> str:
        """Why a function is compiled that was compiled before."""
        changes = self.dependencies.changes()
        if not changes:
            return ""
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        return (
            f"; {', '.join(changes[:3])}{more} changed. If no episode reads it, name it in its"
            " class's `bookkeeping`"
        )

    def _copy_gradients(self, graph: torch.nn.Module) -> None:
        """Have the gradients of the graph's parameters copied.

        The next run of a CUDA graph writes over its results.
        """
        for parameter in graph.parameters():
            if parameter.requires_grad and id(parameter) not in self._copied:
                self._copied.add(id(parameter))
                parameter.register_hook(torch.clone)  # type: ignore[no-untyped-call]


@contextmanager
def _without_a_false_warning() -> Iterator[None]:
    """Ignore a warning that torch's compiler causes itself.

    The compiler keeps it from being shown, not from being an error.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The \.grad attribute of a Tensor that is not a leaf")
        yield


def _on_gpu(tensors: Sequence[Tensor]) -> bool:
    return tensors[0].is_cuda


def _reason(error: BaseException) -> str:
    """The first line of the compiler's own error, below the errors that wrap it."""
    seen: list[BaseException] = []  # a chain may lead back into itself
    while error not in seen:
        seen.append(error)
        error = getattr(error, "inner_exception", None) or error.__cause__ or error
    return f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _captured(graph: torch.fx.GraphModule, tensors: Sequence[Tensor]) -> Any:
    """The graph as what it starts on a GPU for such tensors, and what its backward pass starts."""
    # from torch 2.10 on
    if hasattr(torch.autograd.graph, "set_warn_on_accumulate_grad_stream_mismatch"):
        # It is recorded on a stream of its own, and torch waits for that stream as it should.
        torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    # What it is given becomes what every later episode is written into.
    memory = tuple(tensor.clone() for tensor in tensors)
    with torch.autocast(tensors[0].device.type, enabled=False):
        return torch.cuda.make_graphed_callables(graph, memory, allow_unused_input=True)


def _inductor(graph: torch.fx.GraphModule, inputs: Sequence[Any]) -> Any:
    """Compile by torch's compiler, with our forms of some operations.

    On a GPU started as a whole (a CUDA graph).
    """
    # `torch.compile` itself takes no table of decompositions
    compile_fx = internal("torch._inductor.compile_fx.compile_fx")
    # The cache that goes by what was traced would not see a change of `lowering`; that of what it
    # is made into does.
    options = {"triton.cudagraphs": True, "post_grad_custom_pre_pass": lowering.expansion()}
    with internal("torch._functorch.config.patch")(enable_autograd_cache=False):
        return compile_fx(graph, inputs, decompositions=lowering.table(), config_patches=options)


def _traced(
    function: Callable[[Any], Any], tensors: list[Tensor], tree: Any
) -> tuple[torch.fx.GraphModule, Any]:
    """The function as a flat graph, tensors to a list of tensors, and the tree of these.

    The list's tensors are the leaves of the tree.
    """
    result_tree = None
    shapes = internal("torch._subclasses.fake_tensor.FakeTensorMode")()
    make_fx = internal("torch.fx.experimental.proxy_tensor.make_fx")
    tracing = internal("torch._guards.tracing")

    def flat(*tensors: Tensor) -> list[Tensor]:
        nonlocal result_tree
        leaves, result_tree = flatten(function(unflatten(tree, tensors)))
        return leaves

    # The empty table keeps every `detach`, which by default is traced as nothing and would let
    # gradients through. A weight that autocast has cast before the tracing would be a constant of
    # the graph, and get no gradient.
    cached = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        # With the context, the shapes of all values are held by one mode; without it each makes its
        # own: half the time.
        with tracing(internal("torch._guards.TracingContext")(shapes)):
            return make_fx(flat, decomposition_table={})(*tensors), result_tree
    finally:
        torch.set_autocast_cache_enabled(cached)
