"""Public names that are imported when they are asked for (PEP 562), and what a file may name.

A package writes each name once, as an import that only type checkers and editors follow::

    if TYPE_CHECKING:
        from .conv4 import Conv4 as Conv4
    else:
        __getattr__, __dir__ = lazy_names(__name__)

The same lines are read here as a table of names and the modules that they are in.
"""

import ast
import functools
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec, resolve_name
from typing import Any


def lazy_names(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """What a package that imports its names lazily has as ``__getattr__`` and ``__dir__``."""

    def get(name: str) -> Any:
        if name == "__all__":
            return sorted(public_names(package))
        if name not in public_names(package):
            told = f"module {package!r} has no attribute {name!r}"
            raise AttributeError(told, name=name, obj=sys.modules[package])  # "Did you mean ..."
        value = getattr(import_module(public_names(package)[name]), name)
        setattr(sys.modules[package], name, value)  # not asked for again
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *public_names(package)})

    return get, names


@functools.cache
def public_names(package: str) -> Mapping[str, str]:
    """The public names of `package` and the module of each; nothing of them is imported."""
    modules: dict[str, str] = {}
    for statement in _for_type_checkers(package):
        for alias in statement.names:
            module = resolve_name("." * statement.level + str(statement.module), package)
            modules |= public_names(module) if alias.name == "*" else {alias.name: module}
    return modules


def source_of(module: str) -> str:
    """The source of a module, which is found without importing it; empty where there is none."""
    spec = find_spec(module)
    source = spec and spec.loader and spec.loader.get_source(module)  # type: ignore[attr-defined]
    return source or ""


def _for_type_checkers(package: str) -> list[ast.ImportFrom]:
    blocks = (
        node.body
        for node in ast.parse(source_of(package)).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    return [node for block in blocks for node in block if isinstance(node, ast.ImportFrom)]


def offered(path: str) -> Any:
    """What a file may name by an import path: it runs nothing.

    Either it is in a module that is imported already, by the user or by what the user has imported;
    or it is a public name of the package, in whatever file it was or is.

    Raises:
        LookupError: there is neither.
    """
    names = path.split(".")
    for number in range(len(names) - 1, 0, -1):
        module = sys.modules.get(".".join(names[:number]))
        if module is not None:
            found: Any = module
            for name in names[number:]:
                # not `getattr`, for which a lazy package would import
                found = next((vars(o)[name] for o in _owners(found) if name in vars(o)), None)
            if found is not None:
                return found
            break
    for package in ("fewshot", "fewshot.tasks"):
        if names[0] == "fewshot" and names[-1] in public_names(package):
            return getattr(import_module(package), names[-1])
    raise LookupError(path)


def _owners(found: Any) -> tuple[Any, ...]:
    """Where the attributes of a module or a class are."""
    return (
        found.__mro__ if isinstance(found, type) else (found,) if hasattr(found, "__dict__") else ()
    )
