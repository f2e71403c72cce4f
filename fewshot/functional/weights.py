"""The weights of any module as a dict, and a call with other ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.parameter import UninitializedParameter

from fewshot.engine.inner_loop import Weights
from fewshot.engine.own_checkpoints import call_with_arguments
from fewshot.errors import FewshotError
from fewshot.functional.modes import differentiable, is_plain


def weights_of(module: nn.Module, *names: str) -> Weights:
    """The trainable parameters of `module` by name: the start of an inner loop.

    They are the parameters themselves, so that what is differentiated through the inner loop ends
    in their ``.grad``.

    ```python
    >>> network = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 2))
    >>> {name: tuple(weight.shape) for name, weight in weights_of(network, "1").items()}
    {'1.weight': (2, 8), '1.bias': (2,)}
    ```

    Args:
        module: any.
        *names: those of parameters or of modules, each of which stands for all that begins with it,
            such as ``head`` or ``layers.3``; none means all.

    Raises:
        FewshotError: a name is no parameter's, or a parameter has no shape yet.
    """
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for name, parameter in parameters.items():
        if isinstance(parameter, UninitializedParameter):
            raise FewshotError(f"{name} has no shape yet; call the module on an example before")
    for prefix in names:
        if not any(_belongs(name, prefix) for name in parameters):
            raise FewshotError(
                f"{prefix!r} names no trainable parameter; those are {', '.join(parameters)}"
            )
    return {
        name: parameter
        for name, parameter in parameters.items()
        if not names or any(_belongs(name, prefix) for prefix in names)
    }


def call(module: nn.Module, weights: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
    """``module(*args, **kwargs)`` with `weights` in the place of its parameters of these names.

    Second derivatives are right, under ``torch.vmap`` too: see `differentiable`. The module is as
    before afterwards, its running averages too.

    ```python
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> call(network, {"weight": torch.tensor([[3.0]])}, torch.tensor([[2.0]]))
    tensor([[6.]])
    ```

    Args:
        module: any.
        weights: of all parameters, or of some; the others are the module's own.
        *args: of the module.
        **kwargs: of the module.
    """
    if is_plain(module):
        return functional_call(module, dict(weights), args, kwargs)
    # batch normalisation counts its batches in place, past every function mode
    counters = {
        name: buffer.clone()
        for name, buffer in module.named_buffers()
        if name.endswith("num_batches_tracked")
    }
    return call_with_arguments(module, counters | dict(weights), args, kwargs, differentiable)


@torch.no_grad()
def load_weights(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy `weights` into the parameters of `module` of these names, in place.

    ```python
    >>> network = torch.nn.Linear(1, 1, bias=False)
    >>> load_weights(network, {"weight": torch.tensor([[3.0]])})
    >>> network.weight.tolist()
    [[3.0]]
    ```

    Raises:
        FewshotError: a name or a shape does not fit; the module is as before.
    """
    parameters = dict(module.named_parameters())
    for name, weight in weights.items():
        if name not in parameters:
            raise FewshotError(
                f"{name!r} is no parameter of {type(module).__name__}; those are"
                f" {', '.join(parameters)}"
            )
        if weight.shape != parameters[name].shape:
            raise FewshotError(
                f"{name} has shape {tuple(parameters[name].shape)}, the weight"
                f" {tuple(weight.shape)}; give one of the parameter's shape"
            )
    for name, weight in weights.items():
        parameters[name].copy_(weight)


def _belongs(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")
