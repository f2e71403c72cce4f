"""Classes as their source has them: what they take, read without importing them.

To import a learner takes seconds. What help, completion and a misspelt option need is in the text.
"""

import ast
import functools
import inspect
from collections.abc import Iterator
from importlib.util import resolve_name
from typing import NamedTuple

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring

from fewshot.cli.catalogue import syntax
from fewshot.lazy import public_names, source_of


class Definition(NamedTuple):
    """A class, and the module that it is in."""

    module: str
    node: ast.ClassDef

    @property
    def name(self) -> str:
        """The class's name."""
        return self.node.name

    @property
    def doc(self) -> str:
        """Its docstring, without the section on its arguments."""
        return inspect.cleandoc(ast.get_docstring(self.node) or "").partition("\nArgs:")[0].strip()

    @property
    def constructor(self) -> ast.FunctionDef | None:
        """Its own constructor."""
        functions = (item for item in self.node.body if isinstance(item, ast.FunctionDef))
        return next((function for function in functions if function.name == "__init__"), None)

    @property
    def fixed(self) -> set[str]:
        """The arguments of its base that it fixes itself (`fixed_arguments`)."""
        for item in self.node.body:
            if isinstance(item, ast.Assign | ast.AnnAssign) and item.value is not None:
                targets = item.targets if isinstance(item, ast.Assign) else [item.target]
                if any(ast.unparse(target) == "fixed_arguments" for target in targets):
                    return set(ast.literal_eval(item.value))
        return set()


class Argument(NamedTuple):
    """An argument of a constructor."""

    name: str
    owner: Definition
    """The class that states it: the one that is asked for, or a base."""
    annotation: ast.expr | None
    default: ast.expr | None
    """None where it must be given."""
    text: str
    """What it is."""


def definition(name: str) -> Definition | None:
    """A class by the name that the command line takes: a public one's, or ``module.Class``.

    None where its source says nothing of it.
    """
    name = name.removeprefix("fewshot.")
    module, _, cls = (
        (public_names("fewshot").get(name, ""), "", name)
        if "." not in name
        else (name.rpartition("."))
    )
    return _found(module, cls) if module else None


@functools.cache
def arguments(name: str) -> tuple[Argument, ...]:
    """What the constructor of a class takes by name, those of its bases included.

    A base's count as long as ``**kwargs`` pass them on (see
    `fewshot.hyperparameters.parameter_names`, which needs the class itself).
    """
    one = definition(name)
    if one is None:
        return ()
    taken: dict[str, Argument] = {}
    fixed: set[str] = set()
    for owner in lineage(one):
        if (constructor := owner.constructor) is None:
            continue
        for argument in _stated(owner, constructor):
            if argument.name not in fixed:
                taken.setdefault(argument.name, argument)
        fixed |= owner.fixed
        if constructor.args.kwarg is None:
            break
    return tuple(taken.values())


def _stated(owner: Definition, constructor: ast.FunctionDef) -> Iterator[Argument]:
    docstring = inspect.cleandoc(ast.get_docstring(owner.node) or "")
    texts = {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for parameter in parse_docstring(docstring, DocstringStyle.GOOGLE).params
    }
    given = constructor.args
    without = [None] * (len(given.args) - len(given.defaults))
    positional = zip(given.args, [*without, *given.defaults], strict=True)
    by_name = zip(given.kwonlyargs, given.kw_defaults, strict=True)
    for parameter, default in (*list(positional)[1:], *by_name):
        text = texts.get(parameter.arg, "")
        yield Argument(parameter.arg, owner, parameter.annotation, default, text)


def lineage(one: Definition) -> list[Definition]:
    """The class, then its bases that are found, each behind all that derive from it."""
    above = [one]
    for base in one.node.bases:
        written = base.value if isinstance(base, ast.Subscript) else base  # Base[int]
        if isinstance(written, ast.Name) and (found := _found(one.module, written.id)):
            above.extend(lineage(found))
    return [each for number, each in enumerate(above) if each not in above[number + 1 :]]


def _found(module: str, name: str) -> Definition | None:
    """A class that a module names, wherever it is defined."""
    if name in (classes := _classes(module)):
        return Definition(module, classes[name])
    source, original = imported(module).get(name, ("", ""))
    return _found(source, original) if source else None


def alias(module: str, name: str) -> tuple[str, ast.expr] | None:
    """What a name of a module stands for, where it is an alias of a type; and the module of it."""
    for item in syntax_of(module):
        if isinstance(item, ast.AnnAssign | ast.Assign) and item.value is not None:
            targets = item.targets if isinstance(item, ast.Assign) else [item.target]
            if any(ast.unparse(target) == name for target in targets):
                return module, item.value
    source, original = imported(module).get(name, ("", ""))
    return alias(source, original) if source else None


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    return {item.name: item for item in syntax_of(module) if isinstance(item, ast.ClassDef)}


@functools.cache
def imported(module: str) -> dict[str, tuple[str, str]]:
    """By the name that a module imports from the package, or its own: module and name there."""
    names: dict[str, tuple[str, str]] = {}
    own = {"fewshot", module.partition(".")[0]}
    for item in syntax_of(module):
        if isinstance(item, ast.ImportFrom):
            source = item.module or ""
            if item.level:
                source = resolve_name("." * item.level + source, module.rpartition(".")[0])
            if source.partition(".")[0] not in own:
                continue  # to look into another's package may import it
            for each in item.names:
                place = _exported(source).get(each.name, source)
                names[each.asname or each.name] = place, each.name
    return names


def _exported(module: str) -> dict[str, str]:
    """The modules of what a package of ours exports."""
    return dict(public_names(module)) if module.partition(".")[0] == "fewshot" else {}


@functools.cache
def syntax_of(module: str) -> list[ast.stmt]:
    """The statements of a module; none where there is no source of it."""
    try:
        if module.partition(".")[0] == "fewshot":
            return syntax(module).body
        return ast.parse(source_of(module)).body
    except (ImportError, AttributeError, OSError, SyntaxError, ValueError):
        return []  # whoever imports it says why
