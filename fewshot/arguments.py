"""What arguments may be: the ranges of numbers, and whether a value is what its type hint says.

Ranges are declared where an argument is: ``inner_lr: Positive = 0.01``. A checker of types sees the
number alone, and `--help` shows the range. What the command line's parser refuses is refused here
too; ranges, which it does not judge, are judged here for both.
"""

import math
import os
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from fewshot.errors import closest


@dataclass(frozen=True, repr=False)
class Range:
    """The finite numbers from `least` to `most`.

    Args:
        least: the smallest.
        most: the largest.
        above: `least` itself is outside.
        below: `most` itself is outside.
        why: what stands between the value and the remedy in the message, such as ``: an episode
            needs at least 2 classes``.
    """

    least: float
    most: float = math.inf
    above: bool = False
    below: bool = False
    why: str = ""

    def __contains__(self, value: float) -> bool:
        """Whether `value` is inside."""
        low = self.least < value if self.above else self.least <= value
        high = value < self.most if self.below else value <= self.most
        return low and high and math.isfinite(value)

    def __repr__(self) -> str:
        if self.most == math.inf:
            return f"{'>' if self.above else '>='} {self.least:g}"
        brackets = "(" if self.above else "[", ")" if self.below else "]"
        return f"in {brackets[0]}{self.least:g}, {self.most:g}{brackets[1]}"


Positive: TypeAlias = Annotated[float, Range(0, above=True)]
NonNegative: TypeAlias = Annotated[float, Range(0)]
Share: TypeAlias = Annotated[float, Range(0, 1, below=True)]
"""A share of what is dropped or left out: not all of it."""
Part: TypeAlias = Annotated[float, Range(0, 1, above=True)]
"""A share of what is used: some of it, or all."""
Count: TypeAlias = Annotated[int, Range(1)]
Natural: TypeAlias = Annotated[int, Range(0)]
Vocabulary: TypeAlias = Annotated[int, Range(2, why=": padding and unknown words have ids too")]
Way: TypeAlias = Annotated[int, Range(2, why=": an episode needs at least 2 classes")]


OTHER = ""  # a value of another kind: told together with what else might have been given
LONGEST = 60  # characters of a value in a message
KINDS: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((Integral,), "an integer"),
    float: ((Real,), "a number"),
    str: ((str, os.PathLike), "a text"),
    types.NoneType: ((types.NoneType,), "null"),
}
"""What is taken for a plain type, and what messages call it."""


def fault(name: str, value: object, hint: Any, optional: bool = False) -> str | None:
    """What is wrong with the argument `name`, in one line with the remedy; None where it fits.

    A hint that says nothing which can be judged (a type variable, a protocol) takes every value.

    Args:
        name: what messages call the argument.
        value: what is given for it.
        hint: its type.
        optional: None stands for leaving it out, which is a remedy.
    """
    options = list(_options(hint))
    told = [_fault(name, value, option) for option in options]
    if None in told:
        return None
    leave = " or leave it out" if optional else ""
    if near := next(filter(None, told), None):  # of the right kind, but out of its range
        return near + leave
    words = [word for option in options for word in _words(option)]
    if optional:
        words.remove("null")
    choices = [str(word) for option in options for word in _choices(option)]
    if isinstance(value, str) and (meant := closest(value, choices)):
        return f"{name} is {value!r}; did you mean {meant!r}?"
    return f"{name} is {_shown(value)}; give {' or '.join(dict.fromkeys(words))}{leave}"


def _options(hint: Any) -> Iterator[Any]:
    """The alternatives of a hint: one, or those of a union."""
    if get_origin(hint) in (Union, types.UnionType):
        for option in get_args(hint):
            yield from _options(option)
    else:
        yield hint


def _fault(name: str, value: object, hint: Any) -> str | None:
    """What is wrong by one alternative: None for nothing, `OTHER` for a value of another kind."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _out_of_range(name, value, args[0], args[1:])
    if origin is Literal:
        return None if any(_same(value, choice) for choice in args) else OTHER
    if origin is tuple or hint is tuple:
        return _items(name, value, args)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _entries(name, value, args)
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return _items(name, value, (*args, ...))
    if origin is Callable or hint is Callable:
        return None if callable(value) else OTHER
    if hint is Any or not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
        return None
    return _of_kind(name, value, hint)


def _of_kind(name: str, value: object, kind: type) -> str | None:
    if kind not in KINDS:
        described = isinstance(value, Mapping) and "class_path" in value
        return None if described or isinstance(value, kind) else OTHER
    # Python's True is an integer, but nobody's number
    if not isinstance(value, KINDS[kind][0]) or (isinstance(value, bool) and kind is not bool):
        return OTHER
    if kind is float and math.isnan(value):  # type: ignore[arg-type]  # it is a number
        return f"{name} is nan; give a number"
    return None


def _out_of_range(name: str, value: object, kind: Any, marks: Sequence[object]) -> str | None:
    if (told := _fault(name, value, kind)) is not None:
        return told
    if not math.isfinite(value):  # type: ignore[arg-type]  # a number
        return f"{name} is {value}; give a finite number"
    for mark in marks:
        if isinstance(mark, Range) and value not in mark:  # type: ignore[operator]  # a number
            return f"{name} is {value}{mark.why}; set {name} {mark}"
    return None


def _items(name: str, value: object, args: Sequence[Any]) -> str | None:
    """What is wrong with a sequence: its length where `args` tell it, or one of its items."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return OTHER
    if not args or args[0] is ...:
        return None
    if args[-1] is ...:
        args = [args[0]] * len(value)
    elif len(args) != len(value):
        return f"{name} is {_shown(value)}; give {len(args)} values"
    told = (
        fault(f"{name}[{i}]", item, hint)
        for i, (item, hint) in enumerate(zip(value, args, strict=True))
    )
    return next(filter(None, told), None)


def _entries(name: str, value: object, args: Sequence[Any]) -> str | None:
    """What is wrong with a mapping: one of its keys or of its values."""
    if not isinstance(value, Mapping):
        return OTHER
    if not args:
        return None
    told = (
        fault(f"a key of {name}", key, args[0]) or fault(f"{name}[{key!r}]", item, args[1])
        for key, item in value.items()
    )
    return next(filter(None, told), None)


def _same(value: object, choice: object) -> bool:
    return type(value) is type(choice) and value == choice


def _choices(hint: Any) -> tuple[object, ...]:
    return get_args(hint) if get_origin(hint) is Literal else ()


def _words(hint: Any) -> Iterator[str]:
    """What messages call a value that fits one alternative."""
    origin = get_origin(hint)
    if origin is Annotated:
        yield from _words(get_args(hint)[0])
    elif origin is Literal:
        yield from map(str, get_args(hint))
    elif origin is Callable or hint is Callable:
        yield "something to call"
    elif isinstance(origin, type):
        yield "a mapping" if issubclass(origin, Mapping) else "a list"
    else:
        yield KINDS[hint][1] if hint in KINDS else f"an instance of {hint.__name__}"


def _shown(value: object) -> str:
    """A value as a message shows it: one of no plain type, or a long one, by its type."""
    plain = value is None or isinstance(value, bool | int | float | str | list | tuple | dict)
    text = " ".join(repr(value).split()) if plain else ""
    return text if 0 < len(text) <= LONGEST else f"of type {type(value).__name__}"
