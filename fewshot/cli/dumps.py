"""What jsonargparse and Lightning mean by their longer complaints, in a line each.

Each pattern matches the complaint in one line of single blanks; its last occurrence counts, which
is the innermost.
"""

import re
from collections.abc import Callable
from importlib import import_module

from fewshot.cli.catalogue import benchmarks, learners, networks
from fewshot.errors import nearest

TYPES = {
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "str": "a text",
    "NoneType": "null",
    "dict": "a mapping",
    "collections.abc.Mapping": "a mapping",
    "list": "a list",
    "collections.abc.Sequence": "a list",
}
Say = Callable[[re.Match[str]], str]


BEHIND_VALUES = (
    r" - (?:Problem with|Multiple subclasses)| Given value type|\. Got value:|\s?- Expected a"
)
"""Where the parser goes on behind a value."""


def public(module: str) -> list[str]:
    """The public names of a module; it is imported where there is such a message to make."""
    return list(import_module(module).__all__)


CHOICES: dict[str, Callable[[], list[str]]] = {
    "data": lambda: [entry.name for entry in benchmarks()],
    "model": lambda: [entry.name for entry in learners()],
    "backbone": lambda: [name for entry in networks() for name in (entry.name, *entry.short_names)],
    "optimizer": lambda: public("torch.optim"),
    "lr_scheduler": lambda: public("torch.optim.lr_scheduler"),
    "trainer.callbacks": lambda: public("lightning.pytorch.callbacks"),
    "trainer.logger": lambda: public("lightning.pytorch.loggers"),
}
"""What may stand under each key that names a class."""


def key_of(text: str) -> str:
    """The last key that the parser names in `text`, without what only the parser needs."""
    keys = re.findall(r'Parser key "([\w.]+)"', text)
    return keys[-1].replace("init_args.", "") if keys else ""


def value_of(text: str) -> str:
    """A value that the parser shows, quoted, without what it says behind it."""
    value = re.split(BEHIND_VALUES, text)[0]
    return value if value == "None" or re.match(r"[\[{]", value) else repr(value)


def types_of(expected: str) -> list[str]:
    """What the parser's types and choices in `expected` are called."""
    words: list[str] = []
    for literal, name in re.findall(r"typing\.Literal\[(.*?)\]|<class '([\w.]+)'>", expected):
        words += re.findall(r"[^\s,']+", literal) if literal else [TYPES.get(name, name)]
    return list(dict.fromkeys(words))


def _key(match: re.Match[str]) -> str:
    return key_of(match.string[: match.start()])


def _of_plain_types(match: re.Match[str]) -> str:
    types, value = match.groups()
    words = [word for word in types_of(types) if "." not in word]
    return f"{_key(match)} is {value_of(value)}; give {' or '.join(words)}"


def _no_class(match: re.Match[str]) -> str:
    return (
        f"{_key(match)} is {value_of(match.group(1))}; give the name of a class, or class_path and"
        " init_args"
    )


def _other_class(match: re.Match[str]) -> str:
    path, base = match.groups()
    key = _key(match)
    names = [n for n in CHOICES.get(key, list)() if n.lower() != base.lower()]
    example = f", such as {', '.join(names[:3])}" if names else ""
    return f"{key} is {path}, which is no {base}; give the name of one{example}"


def _number_of_values(match: re.Match[str]) -> str:
    number, value = match.groups()
    return f"{_key(match)} is {value_of(value)}; give {number} values"


def _not_built(match: re.Match[str]) -> str:
    complaint, path = match.groups()
    complaint = re.sub(r"Problem with given class_path '[\w.]+': ", "", complaint)
    name = path.rpartition(".")[2]
    package = re.search(r"pip install (?:-U )?'?([\w-]+)", complaint)
    remedy = f"install {package.group(1)}" if package else "correct its arguments"
    return f"{name} cannot be made: {complaint.rstrip('.')}; {remedy}"


def _unknown_metric(match: re.Match[str]) -> str:
    name, listed = match.groups()
    known = [word for word in re.findall(r"[\w/]+", listed) if not word.endswith("_ci95")]
    near = nearest(name, known)
    return f"a callback's monitor is {name!r}, which nothing logs{near}"


BASES = r"(?:torch\.nn\.Module|torch\.Tensor|lightning\.Callback|[\w.]+\.Logger)"
"""Classes that the parser tries where a value names none, and that nobody means."""
IN_FRONT: tuple[tuple[str, Say], ...] = (
    # raised while an object is made: there is no key, and the object's own complaint comes first
    (
        r"^Does not validate against .*?Errors: - (.+?) - (?:Not a valid|Expected a).*?"
        r"class_path='([\w.]+)'",
        _not_built,
    ),
    # a number of torch's may be a tensor, a path a text: nobody writes the other
    (
        r"Subtypes: \[((?:<class '(?:float|int|bool|str)'>(?:, )?)+(?:<class '[\w.]+'>)?)\]"
        r" Errors: (?:(?!Subtypes).)*?Given value:\s?((?:(?!Given value).)*?)"
        r"(?=\. Got value| - (?:Expected|Problem)| Given|$)",
        _of_plain_types,
    ),
    (r"Expected '([\w.]+)' to be a subclass of .*?(?:<class '|\.)(\w+)'?[>\],]", _other_class),
    (
        r"Expected a path but ([\w.]+) either not .*?Import path does not correspond to a subclass"
        r" of (\w+)",
        _other_class,
    ),
    (
        r"Expected a tuple with (\d+) elements\. Got value: (.*?)(?=\. Got value|$)",
        _number_of_values,
    ),
    (r"Expected an import path or a subclass spec, but got (.*?)\. Got value", _no_class),
    (r"Dict must include a class_path and optionally init_args, but got (.*?)\. Got", _no_class),
    (r"Early stopping conditioned on metric `([^`]+)` .*?following: (.*)$", _unknown_metric),
    (
        r"`ModelCheckpoint\(monitor='([^']+)'\)` could not find .*?metrics: (\[.*?\])",
        _unknown_metric,
    ),
)
"""Patterns that come before those of single values."""
BEHIND: tuple[tuple[str, Say], ...] = (
    (
        rf"Problem with given class_path '{BASES}': Option '[\w.]+' is not accepted"
        r" Given value type: <class 'dict'> Given value: (\{(?:(?!Given value).)*?\})"
        r"(?= - (?:Expected|Problem)| Given|$)",
        _no_class,
    ),
    (
        r"Not a valid subclass of \w+ .*?Given value: ((?:(?!Given value).)*?)"
        r"(?= - (?:Expected|Problem)| Given|$)",
        _no_class,
    ),
    (
        r'Unable to load config "(.*?)"',
        lambda m: (
            f"{_key(m)} is {m.group(1)!r}; give a mapping of its arguments, or a file of them"
        ),
    ),
)
"""Patterns that come after them."""
