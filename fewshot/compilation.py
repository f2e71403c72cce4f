"""Compiles the function of one episode, inner gradients and all, so that it can still be differentiated.

``torch.compile`` cannot differentiate twice through a compiled forward pass. So the function is first traced whole:
the inner gradients become plain operations of one flat graph, and that graph has first derivatives like any other.
Tracing sees operations, not Python: any network, normalisation mode and learner passes through it.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import tree_flatten, tree_unflatten  # what torch.func flattens its trees with

from fewshot.errors import FewshotError

Result = TypeVar("Result")


class Compiler:
    """Compiles functions of tensors, once for each key and each set of shapes.

    Args:
        backend: what `torch.compile` compiles with.
    """

    def __init__(self, backend: str = "inductor") -> None:
        self.backend = backend
        self._compiled: dict[Hashable, tuple[Callable[..., Sequence[Tensor]], Any]] = {}

    def __reduce__(self) -> tuple[type["Compiler"], tuple[str]]:
        """Copies begin empty: a compiled function reads the parameters of the network that it was made for."""
        return Compiler, (self.backend,)

    def __call__(self, function: Callable[[Any], Result], arguments: Any, key: Hashable) -> Result:
        """``function(arguments)``, compiled, with its gradient with respect to the parameters that it reads.

        Args:
            function: takes and gives trees of tensors.
            arguments: a tree of tensors.
            key: all that the function's operations depend on besides the shapes.

        Raises:
            FewshotError: the compiler fails, for example because the machine has no C++ compiler.
        """
        tensors, tree = tree_flatten(arguments)
        device = tensors[0].device.type
        # The graph holds its own casts, so that it runs outside of autocast and is another for each precision.
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        shapes = tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in tensors)
        key = key, precision, torch.is_grad_enabled(), shapes, str(tree)
        if key not in self._compiled:
            rank_zero_info("Compiling the inner loop: minutes the first time on a machine, then seconds from its cache")
            self._compiled[key] = _compiled(function, tensors, tree, self.backend)
        graph, result_tree = self._compiled[key]
        try:
            with torch.autocast(device, enabled=False), torch._dynamo.config.patch(optimize_ddp=False):
                leaves = graph(*tensors)
        except TorchDynamoException as error:
            raise FewshotError(f"compile: true does not work here ({_reason(error)}); set compile: false") from error
        result: Result = tree_unflatten(list(leaves), result_tree)
        return result


def _reason(error: BaseException) -> str:
    """The first line of what the compiler's own error was, below the errors that it is wrapped in."""
    cause = getattr(error, "inner_exception", None) or error.__cause__
    return _reason(cause) if cause is not None else f"{type(error).__name__}: {error}".strip().splitlines()[0]


def _compiled(function: Callable[[Any], Any], tensors: list[Tensor], tree: Any, backend: str) -> tuple[Any, Any]:
    """The function as a compiled graph of tensors to a list of tensors, and the tree that these are the leaves of."""
    result_tree = None

    def flat(*tensors: Tensor) -> list[Tensor]:
        nonlocal result_tree
        leaves, result_tree = tree_flatten(function(tree_unflatten(list(tensors), tree)))
        return leaves

    # The empty table keeps every `detach`, which by default is traced as nothing and would let gradients through.
    # A weight that autocast has cast before the tracing would be a constant of the graph, and get no gradient.
    cached = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        graph = make_fx(flat, decomposition_table={})(*tensors)
    finally:
        torch.set_autocast_cache_enabled(cached)
    return torch.compile(graph, backend=backend, fullgraph=True, dynamic=False), result_tree
