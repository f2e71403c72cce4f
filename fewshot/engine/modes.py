"""What an episode runs under: its normalisation, attention and pooling; a network's own modes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, TypeAlias

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.own_checkpoints import surrounded
from fewshot.engine.pooling import lean_pooling

How: TypeAlias = Literal["loop", "vmap"]

transformed: ContextVar[bool] = ContextVar("transformed", default=False)
"""Whether the code that runs is vmapped over episodes or traced to be compiled: inner gradients
must then be those of ``torch.func``."""


def is_transformed() -> bool:
    """Whether a transform runs around: the engine's own, or ``torch.func``'s of a caller."""
    return transformed.get() or internal("torch._C._functorch.peek_interpreter_stack")() is not None


@contextmanager
def episode_modes(how: How, norm: EpisodeNorm | None = None) -> Iterator[EpisodeNorm]:
    """What an episode runs under; gives the normalisation in force.

    Its normalisation layers use its own statistics (see `EpisodeNorm`), attention runs in plain
    operations, because the fused kernels have no second derivative, and max-pooling that is not
    vmapped keeps less (see `lean_pooling`).

    Args:
        how: whether episodes are vmapped over.
        norm: the normalisation; None makes it.
    """
    norm = EpisodeNorm(exact_vmap=how == "vmap") if norm is None else norm
    if how == "loop":
        norm.instead = {**norm.instead, **lean_pooling(traced=transformed.get())}

    def again(function: Callable[..., Any], *args: Any) -> Any:
        with episode_modes(how, type(norm)(norm.exact_vmap)):
            return function(*args)

    with (
        sdpa_kernel(SDPBackend.MATH),
        norm,
        surrounded(again),
    ):
        yield norm


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """Inside, `network` is in evaluation mode.

    A freshly loaded one is not, and would learn running averages.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
