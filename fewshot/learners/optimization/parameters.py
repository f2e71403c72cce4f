"""Which parameters of a network adapt to an episode, and which it does not use."""

from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import nn

from fewshot.errors import FewshotError

Adapt: TypeAlias = Literal["all", "head", "body"] | Sequence[str]
"""All parameters, those of the head or of the backbone, or names of parameters or of modules."""


def adapted_names(network: nn.Module, adapt: Adapt) -> tuple[str, ...]:
    """The names of the parameters of `network` that `adapt` means.

    Raises:
        FewshotError: a name is no parameter's, or a parameter that should adapt is frozen.
    """
    prefixes = {"all": ["backbone", "head"], "head": ["head"], "body": ["backbone"]}.get(
        str(adapt)
    ) or list(adapt)
    parameters = dict(network.named_parameters())
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


def as_key(name: str) -> str:
    """A parameter's name as the key of a ParameterDict, which takes no dots."""
    return name.replace(".", "/")


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
