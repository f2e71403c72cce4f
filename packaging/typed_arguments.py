"""Write fewshot/__init__.pyi: every public class with all its arguments, for editors and type checkers.

    python packaging/typed_arguments.py

Learners and benchmarks hand most of their arguments on in ``**kwargs``, which nothing but a run would check.
"""

import collections.abc
import functools
import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Any

import lightning as L
from jsonargparse._parameter_resolvers import get_signature_parameters
from torch import nn

import fewshot
from fewshot.hyperparameters import ChecksArguments
from fewshot.lazy import public_names

TARGET = Path(fewshot.__file__).with_suffix(".pyi")
HEADER = '''"""Written by `python packaging/typed_arguments.py`: every public class with all its arguments."""

'''
Imports = set[str]


def written(annotation: Any, imports: Imports) -> str:
    """An annotation as source; what it needs is added to `imports`."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is inspect.Parameter.empty or annotation is Any:
        imports.add("typing")
        return "typing.Any"
    if annotation is None or annotation is type(None):
        return "None"
    if annotation is Ellipsis:
        return "..."
    if origin is typing.Annotated:
        return written(arguments[0], imports)
    if origin is typing.Literal:
        imports.add("typing")
        return f"typing.Literal[{', '.join(map(repr, arguments))}]"
    if origin in (typing.Union, types.UnionType):
        parts = dict.fromkeys(written(one, imports) for one in arguments)
        # typing keeps one object for unions that are equal: who was first has their order
        return " | ".join(sorted(parts, key=lambda part: part != "int"))
    if origin is collections.abc.Callable:
        imports.add("collections.abc")
        taken, given = arguments
        inside = ", ".join(written(one, imports) for one in taken) if taken is not ... else None
        inside = "..." if inside is None else f"[{inside}]"
        return f"collections.abc.Callable[{inside}, {written(given, imports)}]"
    if origin is not None:
        inside = ", ".join(written(one, imports) for one in arguments)
        return f"{_named(origin, imports)}[{inside}]"
    bare = annotation in (collections.abc.Iterable, collections.abc.Sequence)
    return _named(annotation, imports) + ("[typing.Any]" if bare else "")


def _named(kind: Any, imports: Imports) -> str:
    if kind.__module__ == "builtins":
        return str(kind.__qualname__)
    module = kind.__module__
    public = module.partition("._")[0]
    if getattr(sys.modules[public], kind.__qualname__, None) is kind:
        module = public  # Python 3.13 has its paths in pathlib._local
    imports.add(module)
    return f"{module}.{kind.__qualname__}"


@functools.cache
def parameters(kind: type) -> list[Any]:
    """All arguments of a class, which takes the reading of many sources."""
    return list(get_signature_parameters(kind, "__init__"))


def arguments(kind: type, imports: Imports) -> str:
    """The arguments of a class: its own as it takes them, those that it hands on by name."""
    own = inspect.signature(kind.__init__).parameters  # type: ignore[misc]
    parts, named = ["self"], list[str]()
    found = parameters(kind)
    for one in found:
        mine = own.get(one.name)
        text = f"{one.name}: {written(one.annotation, imports)}"
        needed = mine is not None and mine.default is inspect.Parameter.empty
        text += "" if needed else " = ..."
        by_place = mine is not None and mine.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        (parts if by_place else named).append(text)
    if issubclass(kind, fewshot.MetaLearner) and not any(one.name == "task" for one in found):
        named.append("task: dict[str, typing.Any] = ...")  # which the command line does not offer
    return ", ".join([*parts, *(["*", *named] if named else [])])


def is_abstract(kind: type) -> bool:
    """Whether a class leaves methods to others; most of ours have no metaclass that would know."""
    return any(
        getattr(value, "__isabstractmethod__", False)
        for name in dir(kind)
        if (value := inspect.getattr_static(kind, name, None)) is not None
    )


def hands_on(kind: Any) -> bool:
    """Whether a class is a Trainer, or one of ours with options, that names not all.

    Those that are there to be derived from stay as they are.
    """
    kinds = nn.Module | L.LightningDataModule | L.Trainer | ChecksArguments
    if not inspect.isclass(kind) or not issubclass(kind, kinds) or is_abstract(kind):
        return False
    taken = inspect.signature(kind.__init__).parameters.values()
    handed = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken)
    found: Any = kind  # a class is hashable, which mypy is not told
    # one without a constructor seems to take what the `__new__` of its base does: anything
    return handed and (bool(parameters(found)) or kind.__init__ is object.__init__)


def stub() -> str:
    """The whole file."""
    imports: Imports = set()
    plain, classes = [], []
    for name, module in sorted(public_names("fewshot").items()):
        kind = getattr(fewshot, name)
        if hands_on(kind):
            imports.add(module)
            classes.append(
                f"class {name}({module}.{name}):\n"
                f"    def __init__({arguments(kind, imports)}) -> None: ...\n"
            )
        else:
            plain.append(f"from {module} import {name} as {name}")
    lines = [f"import {module}" for module in sorted(imports)] + plain
    return HEADER + "\n".join(lines) + "\n\n__version__: str\n\n" + "\n".join(classes)


if __name__ == "__main__":
    TARGET.write_text(stub())
    print(TARGET)
