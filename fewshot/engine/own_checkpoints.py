"""A network's own activation checkpoints, run again as they were run.

``torch.utils.checkpoint`` runs a part of a network again in the backward pass. By then the fast
weights have left the network and the modes of the episode have ended: the part would be run with
other weights, and the gradient would be wrong without a word.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.func import functional_call

from fewshot.engine.compiling.torch_internals import internal, replaced

Surrounding: TypeAlias = Callable[..., Any]
"""Runs a function, which it takes together with its arguments, as the network is run."""

surroundings: ContextVar[tuple[Surrounding, ...]] = ContextVar("surroundings", default=())
"""What the network runs in, the outermost first."""


@contextmanager
def surrounded(surrounding: Surrounding) -> Iterator[None]:
    """Inside, what checkpoints run again in a backward pass runs in `surrounding` too."""
    outside = surroundings.set((*surroundings.get(), surrounding))
    try:
        with replaced("torch.utils.checkpoint._CheckpointFrame", _frame):
            yield
    finally:
        surroundings.reset(outside)


def call_with(
    network: nn.Module,
    weights: dict[str, Tensor],
    inputs: Any,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Any:
    """``network(inputs)`` with `weights` in the place of its parameters or buffers of these names.

    Args:
        network: a module.
        weights: by name.
        inputs: its only argument.
        within: makes what it is to be run inside of.
    """
    return call_with_arguments(network, weights, (inputs,), {}, within)


def call_with_arguments(
    network: nn.Module,
    weights: dict[str, Tensor],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> Any:
    """``network(*args, **kwargs)`` by `call_with`."""
    fast = _Fast(network, weights, within)
    with surrounded(fast), within():
        return functional_call(network, weights, args, kwargs)


class _Fast:
    """Runs a function with weights in their places in a network.

    No closure, which would refer to itself and keep the weights till Python looks for cycles.
    """

    def __init__(
        self,
        network: nn.Module,
        weights: dict[str, Tensor],
        within: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.network, self.weights, self.within = network, weights, within

    def __call__(self, function: Callable[..., Any], *args: Any) -> Any:
        with surrounded(self), self.within():
            return run_with(self.network, self.weights, function, *args)


def run_with(
    network: nn.Module, weights: dict[str, Tensor], function: Callable[..., Any], *args: Any
) -> Any:
    """``function(*args)``, which runs `network`, with `weights` in the place of its parameters.

    What goes back through the network within `function` needs no surroundings.
    """
    named = {f"network.{name}": weight for name, weight in weights.items()}
    return functional_call(_Part(network, function), named, args)


class _Part(nn.Module):
    """A function that reads the parameters of a network."""

    def __init__(self, network: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def _frame(recompute: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A checkpoint, in the surroundings of now."""
    for surrounding in reversed(surroundings.get()):
        recompute = _within(surrounding, recompute)
    frame = internal("torch.utils.checkpoint._CheckpointFrame")
    return frame(recompute, *args, **kwargs)


def _within(surrounding: Surrounding, function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args: surrounding(function, *args)
