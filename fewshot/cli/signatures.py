"""The arguments of the package's classes, read from the source: importing a class takes seconds."""

import ast
import functools
from collections.abc import Sequence
from importlib.util import resolve_name
from itertools import pairwise
from typing import NamedTuple

from fewshot.cli.catalogue import benchmarks, learners, networks, syntax
from fewshot.errors import FewshotError, nearest
from fewshot.lazy import public_names

KINDS = {"model": learners, "model.backbone": networks, "data": benchmarks}
"""The options that name a class, and those it may be."""
PARTS = ("class_path", "init_args", "dict_kwargs", "help")
"""What may follow such an option besides the class's arguments."""


class Definition(NamedTuple):
    """A class as its module's source has it."""

    module: str
    node: ast.ClassDef


def check_class_options(args: Sequence[str]) -> None:
    """Check options such as ``--model.inner_lr`` where the command line names the class.

    Raises:
        FewshotError: one of the package's classes has no such argument.
    """
    named: dict[str, str] = {}
    for arg, after in pairwise([*args, ""]):
        option, equals, inline = arg.removeprefix("--").partition("=")
        key = option.removesuffix(".class_path")
        if not arg.startswith("--"):
            continue
        if key in KINDS:
            named[key] = (inline if equals else after).removeprefix("fewshot.")
        owner = max((kind for kind in named if option.startswith(f"{kind}.")), key=len, default="")
        argument = option[len(owner) + 1 :].removeprefix("init_args.").partition(".")[0]
        if owner and key not in KINDS and argument.removesuffix("+") not in PARTS:
            _check(owner, named[owner], argument.removesuffix("+"))


def _check(kind: str, name: str, argument: str) -> None:
    if not any(entry.name == name for entry in KINDS[kind]()):
        return  # a short name, or a class of the user's own
    known = arguments(name)
    if argument not in known:
        raise FewshotError(f"{name} has no argument {argument!r}{nearest(argument, known)}")


@functools.cache
def arguments(name: str) -> tuple[str, ...]:
    """What a public class's constructor takes by name, those of its bases included.

    A base's count as long as ``**kwargs`` pass them on (see
    `fewshot.hyperparameters.parameter_names`, which needs the class itself).
    """
    found: list[str] = []
    fixed: set[str] = set()
    for definition in _lineage(Definition(public_names("fewshot")[name], _public(name))):
        constructor = _constructor(definition.node)
        if constructor is None:
            continue
        taken = (*constructor.args.args[1:], *constructor.args.kwonlyargs)
        found.extend(a.arg for a in taken if a.arg not in fixed and a.arg not in found)
        fixed |= _fixed(definition.node)
        if constructor.args.kwarg is None:
            break
    return tuple(found)


def _public(name: str) -> ast.ClassDef:
    return _classes(public_names("fewshot")[name])[name]


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in syntax(module).body if isinstance(node, ast.ClassDef)}


@functools.cache
def _imported(module: str) -> dict[str, tuple[str, str]]:
    """By the name that a module imports from the package: the module and the name there."""
    names = {}
    for node in syntax(module).body:
        if isinstance(node, ast.ImportFrom) and (node.level or f"{node.module}."[:8] == "fewshot."):
            source = resolve_name("." * node.level + (node.module or ""), module.rpartition(".")[0])
            names.update({alias.asname or alias.name: (source, alias.name) for alias in node.names})
    return names


def _lineage(definition: Definition) -> list[Definition]:
    """The class, then its bases in the package, each behind all that derive from it."""
    above = [definition]
    for base in definition.node.bases:
        written = base.value if isinstance(base, ast.Subscript) else base  # Base[int]
        if isinstance(written, ast.Name) and (found := _found(definition.module, written.id)):
            above.extend(_lineage(found))
    return [one for number, one in enumerate(above) if one not in above[number + 1 :]]


def _found(module: str, name: str) -> Definition | None:
    """A class that a module names, wherever in the package it is defined."""
    if name in _classes(module):
        return Definition(module, _classes(module)[name])
    source, original = _imported(module).get(name, ("", ""))
    if not source:
        return None
    return _found(public_names(source).get(original, source), original)


def _constructor(node: ast.ClassDef) -> ast.FunctionDef | None:
    functions = (item for item in node.body if isinstance(item, ast.FunctionDef))
    return next((function for function in functions if function.name == "__init__"), None)


def _fixed(node: ast.ClassDef) -> set[str]:
    """The arguments of its base that a class fixes itself (`fixed_arguments`)."""
    for item in node.body:
        if isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None:
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            if any(ast.unparse(target) == "fixed_arguments" for target in targets):
                return set(ast.literal_eval(item.value))
    return set()
