"""Options of a class, such as ``--model.inner_lr``, whose class is named beside them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.cli import aliases
from fewshot.cli.arguments import options, read_config
from fewshot.cli.configs import locate
from fewshot.cli.definitions import arguments
from fewshot.errors import FewshotError, nearest

KINDS = {
    option: aliases.KINDS[option.rpartition(".")[2]]
    for option in ("model", "model.backbone", "data", "data.benchmark")
}
"""The options that name a class, and those it may be."""
PARTS = ("class_path", "init_args", "dict_kwargs", "help")
"""What may follow such an option besides the class's arguments."""


def check_class_options(args: Sequence[str]) -> None:
    """Check options such as ``--model.inner_lr``, where an option or a config names the class.

    Raises:
        FewshotError: one of the package's classes has no such argument.
    """
    named: dict[str, str] = {}
    for option, value in options(args):
        if _names(named, option, value):
            continue
        owner = max((kind for kind in named if option.startswith(f"{kind}.")), key=len, default="")
        rest = option[len(owner) + 1 :].removeprefix("init_args.").partition(".")[0]
        if owner and (argument := rest.removesuffix("+")) not in PARTS:
            _check(owner, named, argument)


def named_by(args: Sequence[str]) -> dict[str, str]:
    """The classes that a command line and its configs name, by the options that take them."""
    named: dict[str, str] = {}
    for option, value in options(args):
        _names(named, option, value)
    return {key: name for key, name in named.items() if name}


def _names(named: dict[str, str], option: str, value: str) -> bool:
    """Whether an option names classes; these are noted in `named`."""
    key = option.removesuffix(".class_path")
    if key == "config":
        named |= _in_config(value)
    elif key in KINDS:
        if key == "model":  # the network that goes with another learner is not known here
            named.pop("model.backbone", None)
        named[key] = value.removeprefix("fewshot.")
    return key == "config" or key in KINDS


def _in_config(name: str) -> dict[str, str]:
    """The classes that a config names, by their options; of one that cannot be read none."""
    try:
        path = Path(locate(name))
        content = read_config(path) if path.is_file() else {}
    except (FewshotError, OSError):  # it is looked at where it is used
        return {}
    found = {}
    for key in KINDS:
        value = _at(content, key.split("."))
        value = value.get("class_path") if isinstance(value, Mapping) else value
        if isinstance(value, str):
            kind = key.rpartition(".")[2]
            found[key] = aliases.meant(kind, value.removeprefix("fewshot."))
    return found


def _at(content: Any, names: Sequence[str]) -> Any:
    """What a config says of an argument; None where it says nothing."""
    for name in names:
        if isinstance(content, Mapping) and "class_path" in content:
            content = content.get("init_args")
        content = content.get(name) if isinstance(content, Mapping) else None
    return content


def _check(kind: str, named: Mapping[str, str], argument: str) -> None:
    known = _known(kind, named[kind])
    if not known or argument in known:
        return
    for inner, name in named.items():  # such as a learner's network
        if inner.startswith(f"{kind}.") and argument in _known(inner, name):
            meant = f"; did you mean --{inner}.{argument}?"
            break
    else:
        meant = nearest(argument, known)
    raise FewshotError(f"{named[kind]} has no argument {argument!r}{meant}")


def _known(kind: str, name: str) -> list[str]:
    """A class's arguments; none of a short name, or of a class of the user's own."""
    if not any(entry.name == name for entry in KINDS[kind]()):
        return []
    return [each.name for each in arguments(name)]
