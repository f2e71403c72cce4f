"""Constructor arguments: what they may be, and plain values of which a checkpoint rebuilds them.

What is given is checked by its type hint before the constructor runs (`fewshot.arguments`), from
Python as from the command line. A checkpoint holds numbers, strings, lists and dicts only (it loads
with ``weights_only=True``). A module or an optimizer among the arguments is held the way a config
writes it: ``{"class_path": ..., "init_args": {...}}``.
"""

import functools
import importlib
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Integral, Real
from typing import Any, get_type_hints

from typing_extensions import Self

from fewshot.arguments import fault
from fewshot.errors import FewshotError, nearest
from fewshot.lazy import offered


class ChecksArguments:
    """Mix-in: a constructor refuses arguments that are not what their type hints say."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments that are given.

        Raises:
            FewshotError: there is no such argument, or its value is none of its choices, of another
                kind or out of its range.
        """
        check_arguments(cls, args, kwargs)
        return super().__new__(cls)


class RemembersArguments(ChecksArguments):
    """Mix-in: an object knows its constructor arguments, defaults included, as `init_args`."""

    init_args: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Remember the arguments."""
        instance = super().__new__(cls, *args, **kwargs)
        # Past nn.Module.__setattr__, which must not be used before nn.Module.__init__ has run.
        object.__setattr__(instance, "init_args", constructor_arguments(cls, args, kwargs))
        return instance


def signatures(cls: type) -> Iterator[list[inspect.Parameter]]:
    """The constructor's parameters (without self), then its base's while ``**kwargs`` are passed.

    Their annotations are types, none is a string. What a class fixes itself when it calls its
    base (ANIL: `adapt`), it names in an attribute `fixed_arguments`.
    """
    settled: set[str] = set()
    for owner in (c for c in cls.__mro__ if "__init__" in vars(c)):
        parameters = typed_parameters(vars(owner)["__init__"])
        yield [parameter for parameter in parameters if parameter.name not in settled]
        settled.update(vars(owner).get("fixed_arguments", ()))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break


@functools.lru_cache(maxsize=1024)
def typed_parameters(constructor: Any) -> tuple[inspect.Parameter, ...]:
    """A constructor's parameters without self, with types for annotations.

    Kept: each object asks three times, and to find out takes longer than to make the object.
    """
    hints = type_hints(constructor)
    return tuple(
        parameter.replace(annotation=hints.get(parameter.name, Any))
        for parameter in list(inspect.signature(constructor).parameters.values())[1:]
    )


@functools.lru_cache(maxsize=1024)
def type_hints(function: Any) -> dict[str, Any]:
    """The types of a function's parameters, ranges included.

    None where one names what is imported for a checker of types alone, which nobody can look up.
    """
    try:
        return get_type_hints(function, include_extras=True)
    except NameError:
        return {}


def parameter_names(cls: type) -> list[str]:
    """Every argument that a constructor takes by name, those of its bases included."""
    return [
        p.name
        for parameters in signatures(cls)
        for p in parameters
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]


def check_arguments(
    cls: type, args: tuple[Any, ...], kwargs: dict[str, Any], partly: bool = False
) -> None:
    """Check what ``cls(*args, **kwargs)`` is given by the type hints of its constructors.

    Defaults are not looked at. Nor is what is missing where nothing is given: copies are made so;
    nor where the arguments are given `partly`.

    Raises:
        FewshotError: in one line, which names the argument and the remedy.
    """
    levels = list(signatures(cls))
    known = {parameter.name: parameter for level in reversed(levels) for parameter in level}
    others = [name for name, p in known.items() if p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    takes_any = not levels or any(p.kind is p.VAR_KEYWORD for p in levels[-1])
    given = _by_name(levels, args, kwargs)
    for name, value in given.items():
        if name in known and name not in others:
            parameter = known[name]
            if told := fault(name, value, parameter.annotation, parameter.default is None):
                raise FewshotError(told)
        elif not takes_any:
            names = (name for name in known if name not in others)
            raise FewshotError(f"{cls.__name__} has no argument {name!r}{nearest(name, names)}")
    if given and not partly and (missing := missing_arguments(cls, args, kwargs)):
        told = ", ".join(missing)
        raise FewshotError(f"{cls.__name__} needs the argument {told}; pass {missing[0]}=...")


def missing_arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """The names of what a constructor needs and is not given."""
    levels = list(signatures(cls))
    given = _by_name(levels, args, kwargs)
    known = {parameter.name: parameter for level in reversed(levels) for parameter in level}
    others = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return [
        name
        for name, p in known.items()
        if p.default is p.empty and p.kind not in others and name not in given
    ]


def constructor_arguments(
    cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments of ``cls(*args, **kwargs)`` by name, with defaults for those not given."""
    levels = list(signatures(cls))
    arguments = _by_name(levels, args, kwargs)
    for parameter in (parameter for level in levels for parameter in level):
        if parameter.default is not parameter.empty:
            arguments.setdefault(parameter.name, parameter.default)
    return arguments


def _by_name(
    levels: Iterable[list[inspect.Parameter]], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """What a constructor is given, by name: its base's go on where it hands ``*args`` on."""
    names: list[str] = []
    for level in levels:
        names += [p.name for p in level if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if not any(p.kind is p.VAR_POSITIONAL for p in level):
            break
    return {**dict(zip(names, args, strict=False)), **kwargs}


def describe(value: Any) -> Any:
    """`value` as plain values.

    Modules that remember their arguments, classes and partials become descriptions.
    """
    if isinstance(value, RemembersArguments):
        return _description(type(value), value.init_args)
    if isinstance(value, functools.partial):
        return _description(value.func, value.keywords)
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [describe(item) for item in value]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):  # numpy's too
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, type) or inspect.isfunction(value):
        return _description(value, {})
    return _description(type(value), None)  # e.g. a user's own module: named, but not rebuilt


def _description(target: Any, init_args: Mapping[str, Any] | None) -> dict[str, Any]:
    plain = None if init_args is None else describe(init_args)
    return {"class_path": _import_path(target), "init_args": plain}


def _import_path(target: Any) -> str:
    """Where `target` is imported from; the package's own name for it outlives the file it is in."""
    public = getattr(importlib.import_module("fewshot"), target.__qualname__, None)
    return f"{'fewshot' if public is target else target.__module__}.{target.__qualname__}"


def build(value: Any, expected: type, argument: str) -> Any:
    """The object that `value` describes; anything but a description is passed through.

    Nothing is imported because a description names it (see `offered`).

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
    if value.get("init_args") is None:
        raise FewshotError(
            f"the checkpoint does not hold the arguments of {argument} {path}; pass {argument}=<the"
            " module> to load_from_checkpoint, or derive the class from fewshot.backbones.Backbone"
        )
    target = _located(path, argument)
    if not (isinstance(target, type) and issubclass(target, expected)):
        raise FewshotError(f"{argument} {path} is not a {expected.__name__}; pass one that is")
    return target(**value["init_args"])


def _located(path: str, argument: str) -> Any:
    try:
        return offered(path)
    except LookupError as error:
        raise FewshotError(not_offered(path, argument)) from error


def not_offered(path: str, argument: str) -> str:
    """What to say of an import path in a checkpoint that is not `offered`."""
    module = path.rpartition(".")[0]
    if not module or module == "fewshot" or module.startswith("fewshot.") or module in sys.modules:
        return (
            f"{argument} is {path}, which this fewshot and what is imported do not have; pass"
            f" {argument}=<the object> to fewshot.load or load_from_checkpoint"
        )
    return (
        f"{argument} is {path}, and a checkpoint imports nothing: `import {module}` before, on the"
        f" command line give --import {module}, or pass {argument}=<the object> to fewshot.load"
    )


_WEIGHTS_FOLLOW = ContextVar("_WEIGHTS_FOLLOW", default=False)


@contextmanager
def without_weights() -> Iterator[None]:
    """Inside, networks are built without pre-trained weights: a checkpoint's take their place.

    So a checkpoint of a pre-trained network is loaded without fetching again what it overwrites at
    once.
    """
    token = _WEIGHTS_FOLLOW.set(True)
    try:
        yield
    finally:
        _WEIGHTS_FOLLOW.reset(token)


def weights_follow() -> bool:
    """Whether a checkpoint's weights are about to take the place of a network's own.

    See `without_weights`.
    """
    return _WEIGHTS_FOLLOW.get()
