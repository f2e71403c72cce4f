"""Constructor arguments as plain values, so that a checkpoint rebuilds what it holds without a config.

A checkpoint holds numbers, strings, lists and dicts only (it loads with ``weights_only=True``). A module or an
optimizer among the arguments is held the way a config writes it: ``{"class_path": ..., "init_args": {...}}``.
"""

import functools
import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from typing_extensions import Self

from fewshot.errors import FewshotError


class RemembersArguments:
    """Mix-in: an object knows the arguments that it was constructed with, defaults included, as `init_args`."""

    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        instance = super().__new__(cls)
        # Past nn.Module.__setattr__, which must not be used before nn.Module.__init__ has run.
        object.__setattr__(instance, "init_args", constructor_arguments(cls, args, kwargs))
        return instance


def constructor_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``cls(*args, **kwargs)`` by name, with the defaults of everything not given.

    Where a constructor hands ``**kwargs`` on to its base class, the base's parameters count too.
    """
    arguments: dict[str, Any] = {}
    for depth, owner in enumerate(c for c in cls.__mro__ if "__init__" in vars(c)):
        signature = inspect.signature(vars(owner)["__init__"])
        if depth == 0:
            bound = signature.bind_partial(None, *args, **kwargs)  # what is missing, __init__ itself reports
            arguments.update(list(bound.arguments.items())[1:])
        open_ended = False
        for parameter in list(signature.parameters.values())[1:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                open_ended = True
                arguments.update(arguments.pop(parameter.name, {}))
            elif parameter.default is not parameter.empty:
                arguments.setdefault(parameter.name, parameter.default)
        if not open_ended:
            break
    return arguments


def describe(value: Any) -> Any:
    """`value` as plain values: modules that remember their arguments, classes and partials become descriptions."""
    if isinstance(value, RemembersArguments):
        return _description(type(value), value.init_args)
    if isinstance(value, functools.partial):
        return _description(value.func, value.keywords)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, type) or inspect.isfunction(value):
        return _description(value, {})
    return _description(type(value), None)  # e.g. a user's own module: named, but not rebuilt


def _description(target: Any, init_args: Mapping[str, Any] | None) -> dict[str, Any]:
    path = f"{target.__module__}.{target.__qualname__}"
    return {"class_path": path, "init_args": None if init_args is None else describe(init_args)}


def build(value: Any, expected: type, argument: str) -> Any:
    """The object that `value` describes; anything but a description is passed through.

    Args:
        value: an object, or what `describe` made of one.
        expected: the class that the object must be of.
        argument: the argument's name, for the message.

    Raises:
        FewshotError: the description names no such class, or one whose arguments were not held.
    """
    if not (isinstance(value, Mapping) and "class_path" in value):
        return value
    path = str(value["class_path"])
    module, _, name = path.rpartition(".")
    if value.get("init_args") is None:
        raise FewshotError(
            f"the checkpoint does not hold the arguments of {argument} {path}; pass {argument}=<the module>"
            " to load_from_checkpoint, or derive the class from fewshot.backbones.Backbone"
        )
    try:
        target = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise FewshotError(f"{argument} {path} cannot be imported ({error})") from error
    if not (isinstance(target, type) and issubclass(target, expected)):
        raise FewshotError(f"{argument} {path} is not a {expected.__name__}; pass one that is")
    return target(**value["init_args"])
