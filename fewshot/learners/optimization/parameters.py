"""Which parameters of a network adapt to an episode, which it does not use, and other arguments."""

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from fewshot.engine.compiling.compiler import Compile
from fewshot.errors import FewshotError
from fewshot.tasks import Classification, Task

Adapt: TypeAlias = Literal["all", "head", "body"] | Sequence[str]
"""All parameters, those of the head or of the backbone, or names of parameters or of modules."""


def adapted_names(network: nn.Module, adapt: Adapt) -> tuple[str, ...]:
    """The names of the parameters of `network` that `adapt` means.

    Raises:
        FewshotError: a name is no parameter's, or a parameter that should adapt is frozen.
    """
    unread = {f"backbone.{n}" for n in getattr(getattr(network, "backbone", None), "unread", ())}
    parameters = {name: p for name, p in network.named_parameters() if name not in unread}
    body = "adapters" if any(name.startswith("adapters.") for name in parameters) else "backbone"
    prefixes = {"all": [body, "head"], "head": ["head"], "body": [body]}.get(str(adapt)) or list(
        adapt
    )
    chosen: set[str] = set()
    for prefix in prefixes:
        found = {name for name in parameters if name == prefix or name.startswith(prefix + ".")}
        if not found and adapt != "all":
            raise FewshotError(
                f"adapt names {prefix!r}, but the parameters are {', '.join(parameters)}; name one"
                " of them"
            )
        chosen |= found
    for name in sorted(chosen):
        if not parameters[name].requires_grad:
            raise FewshotError(
                f"parameter {name} is frozen but should adapt; unfreeze it or leave it out of"
                " `adapt`"
            )
    return tuple(name for name in parameters if name in chosen)


def named_now(network: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """The parameters that had these names when the network was made, by those that they have now.

    What torch prunes it calls ``*_orig``, and multiplies by a mask where it is read.
    """
    now = dict(network.named_parameters())
    return {name: now[name] for name in (n if n in now else f"{n}_orig" for n in names)}


def as_key(name: str) -> str:
    """A parameter's name as the key of a ParameterDict, which takes no dots."""
    return name.replace(".", "/")


def check_task(task: Task, compile: Compile, head_only: bool, outer: object) -> None:
    """Refuse options that do not go with the task.

    Raises:
        FewshotError: `compile` is on for what differs from episode to episode, or the head alone
            adapts to what is played, or there is an `outer` step and nothing to play.
    """
    if outer is not None and not task.acts:
        raise FewshotError(
            f"outer is {type(outer).__name__}, which is for tasks to act in, but the benchmark's is"
            f" {task.kind}; leave outer out"
        )
    if compile and isinstance(task, Classification) and task.way is None:
        raise FewshotError(
            "compile is on, which takes minutes for each size of an episode, but the"
            " benchmark's way differs from episode to episode; set compile: false"
        )
    if compile and task.acts:
        raise FewshotError(
            "compile is on, but what is learned from is played between the inner steps, a hundred"
            " times as many operations; set compile: false"
        )
    if head_only and task.acts:
        raise FewshotError(
            "adapt is 'head', but features are of observations, which acting brings; set adapt: all"
        )


def without_gradient(loss: Tensor, weights: Mapping[str, Tensor]) -> list[str]:
    """The names of the weights that have no part in a loss; a gradient says no more than 0."""
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return [name for name, slope in zip(weights, gradients, strict=True) if slope is None]


def refuse_unused(names: Sequence[str]) -> None:
    """Raise an error if there are parameters that the network does not use.

    Raises:
        FewshotError: there are `names`.
    """
    if names:
        raise FewshotError(
            f"{', '.join(names)} get no gradient: the network does not use them; remove the layer,"
            " or freeze it and leave it out of `adapt`"
        )
