"""Every benchmark, learner and backbone of the package, read from the source.

So the list cannot go stale, and nothing has to be imported for it: it is there at once.
"""

import ast
import functools
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import fewshot
from fewshot.lazy import public_names


class Entry(NamedTuple):
    """A class that the command line knows by its short name."""

    name: str
    doc: str
    """Its docstring."""
    short_names: Mapping[str, Mapping[str, Any]] = {}
    """Names that stand for it and some of its arguments; only backbones have them."""
    aliases: Sequence[str] = ()
    """Other names of it, which its class states as `aliases`."""

    @property
    def cls(self) -> type:
        """The class itself, imported."""
        found: type = getattr(fewshot, self.name)
        return found

    @property
    def summary(self) -> str:
        """The first sentence of its docstring, without its name and its paper."""
        text = " ".join(self.doc.split("\n\n")[0].split())
        return re.sub(r" Paper: .*$", "", text.removeprefix(f"{self.name}: "))

    @property
    def paper(self) -> str:
        """The source that its docstring names after ``Paper:``; empty where it names none."""
        paragraphs = (" ".join(text.split()) for text in self.doc.split("\n\n"))
        matches = (re.search(r"Paper: (.+?)\.?$", text) for text in paragraphs)
        return next((match.group(1) for match in matches if match), "")


@functools.cache
def entries(room: str) -> list[Entry]:
    """The classes that `room` exports and whose docstrings name a paper: no base class does."""
    names = public_names(f"fewshot.{room}")
    exported = (_entry(module, name) for name, module in names.items())
    return sorted(
        (entry for entry in exported if entry.paper), key=lambda entry: entry.name.lower()
    )


def benchmarks() -> list[Entry]:
    """Every benchmark's DataModule."""
    return entries("datamodules")


def learners() -> list[Entry]:
    """Every learner."""
    return entries("learners")


def networks() -> list[Entry]:
    """Every backbone."""
    return entries("backbones")


def find(path: str) -> type | None:
    """The class of the catalogue that an import path or a short name means."""
    name = path.rpartition(".")[2]
    return next((e.cls for e in (*benchmarks(), *learners(), *networks()) if e.name == name), None)


def import_all() -> None:
    """Import every class that a run is made of, so that the parser knows it by its short name."""
    for name, module in public_names("fewshot").items():
        if not module.startswith("fewshot.deployment."):  # some would import scikit-learn
            getattr(fewshot, name)


def _entry(module: str, name: str) -> Entry:
    classes = (node for node in syntax(module).body if isinstance(node, ast.ClassDef))
    definition = next(node for node in classes if node.name == name)
    stated = {
        ast.unparse(statement.target): ast.literal_eval(statement.value)
        for statement in definition.body
        if isinstance(statement, ast.AnnAssign)
        and statement.value is not None
        and ast.unparse(statement.target) in ("short_names", "aliases")
    }
    return Entry(name, inspect.cleandoc(ast.get_docstring(definition) or ""), **stated)


@functools.cache
def syntax(module: str) -> ast.Module:
    """A module of the package as its source has it."""
    file = Path(fewshot.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    return ast.parse(file.read_text(encoding="utf-8"))
