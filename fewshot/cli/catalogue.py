"""Every benchmark, learner and backbone, found by import, so that the list cannot go stale."""

import inspect
import re
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

import fewshot.backbones
import fewshot.datamodules
import fewshot.learners


class Entry(NamedTuple):
    """A class that the command line knows by its short name."""

    name: str
    cls: type

    @property
    def summary(self) -> str:
        """The first sentence of its docstring, without its name and its paper."""
        text = " ".join((inspect.getdoc(self.cls) or "").split("\n\n")[0].split())
        return re.sub(r" Paper: .*$", "", text.removeprefix(f"{self.name}: "))

    @property
    def paper(self) -> str:
        """The source that its docstring names after ``Paper:``."""
        paragraphs = (
            " ".join(text.split()) for text in (inspect.getdoc(self.cls) or "").split("\n\n")
        )
        matches = (re.search(r"Paper: (.+?)\.?$", text) for text in paragraphs)
        return next((match.group(1) for match in matches if match), "")


def concrete(base: type) -> list[Entry]:
    """The concrete subclasses of `base` that the package exports, by name."""
    found: set[type] = set()
    stack: list[type] = [base]
    while stack:
        subclasses: list[type] = stack.pop().__subclasses__()
        stack += subclasses
        for cls in subclasses:
            if not inspect.isabstract(cls) and getattr(fewshot, cls.__name__, None) is cls:
                found.add(cls)
    return sorted((Entry(cls.__name__, cls) for cls in found), key=lambda entry: entry.name.lower())


def benchmarks() -> list[Entry]:
    """Every benchmark's DataModule."""
    return concrete(fewshot.datamodules.EpisodicDataModule)


def learners() -> list[Entry]:
    """Every learner."""
    return concrete(fewshot.learners.MetaLearner)


def networks() -> list[Entry]:
    """Every backbone."""
    return concrete(fewshot.backbones.Backbone)


def find(path: str) -> type | None:
    """The class of the catalogue that an import path or a short name means."""
    name = path.rpartition(".")[2]
    return next((e.cls for e in (*benchmarks(), *learners(), *networks()) if e.name == name), None)


def print_catalogue() -> None:
    """Print one table a kind."""
    console = Console()
    for title, entries in (
        ("Benchmarks (--data)", benchmarks()),
        ("Learners (--model)", learners()),
        ("Backbones (--model.backbone)", networks()),
    ):
        table = Table(title=title, title_justify="left", title_style="bold", expand=False)
        table.add_column("class", no_wrap=True)
        table.add_column("what it is")
        table.add_column("paper")
        for entry in entries:
            table.add_row(entry.name, entry.summary, entry.paper)
        console.print(table)
