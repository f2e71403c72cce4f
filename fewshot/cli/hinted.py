"""What the type hints of the package's classes say of a value that the parser complains of.

Of a value that may be of several types the parser tells every attempt; a class's own check tells
which item is wrong, and what it may be.
"""

import ast
import inspect
import pydoc
import re
from contextlib import suppress
from typing import Any, get_args

import fewshot
from fewshot.arguments import KINDS, fault
from fewshot.cli.catalogue import find
from fewshot.hyperparameters import signatures
from fewshot.lazy import public_names

SEVERAL = re.compile(
    r"Problem with given class_path '([\w.]+)': Parser key \"(\w+)\": Does not validate against"
    r" any of the Union subtypes (?:(?!Problem with|Parser key).)*?Given value type: <class '\w+'>"
    r" Given value: (.*?)(?= - (?:Expected|Problem)| Given|$)"
)
"""The parser's complaint: a class, its argument and the value."""


def of_several_types(text: str) -> str | None:
    """What is wrong with an argument of several plain types, in one line; None of another."""
    for path, name, value in reversed(SEVERAL.findall(text)):
        cls = find(path) or pydoc.locate(path)
        levels = signatures(cls) if isinstance(cls, type) else ()
        parameter = {p.name: p for level in levels for p in level}.get(name)
        if parameter is None or not is_plain(parameter.annotation):
            continue
        given: object = value
        with suppress(ValueError, SyntaxError):  # a text without quotes is no literal
            given = ast.literal_eval(value)
        if told := fault(name, given, parameter.annotation, parameter.default is None):
            return told
    return None


def is_plain(hint: Any) -> bool:
    """Whether a hint is made of numbers, texts, choices and lists of them alone."""
    if isinstance(hint, type) and not get_args(hint):
        return hint in KINDS
    return hint is not Any and all(
        is_plain(part) for part in get_args(hint) if isinstance(part, type) or get_args(part)
    )


def public_kinds(text: str) -> list[str]:
    """The package's classes of the kind that the parser has looked for last, by their names.

    Args:
        text: of the parser, up to its complaint.
    """
    bases = re.findall(r"Subtypes: \[<class '(fewshot\.[\w.]+)'>", text)
    base = pydoc.locate(bases[-1]) if bases else None
    if not isinstance(base, type):
        return []
    room = ".".join(base.__module__.split(".")[:2])
    offered = (
        getattr(fewshot, name)
        for name, module in public_names("fewshot").items()
        if module.startswith(f"{room}.")
    )
    return [
        cls.__name__
        for cls in offered
        if isinstance(cls, type) and issubclass(cls, base) and not inspect.isabstract(cls)
    ]
