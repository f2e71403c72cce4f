"""Which arguments of the learner and its networks the facts of a benchmark fill.

A benchmark declares its facts (`EpisodicDataModule.facts`); they go to every argument of the same
name. So a fact is asked for only where something needs it: to know some, data must be read.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from fewshot.cli.catalogue import benchmarks
from fewshot.datamodules import EpisodicDataModule
from fewshot.errors import FewshotError
from fewshot.hyperparameters import signatures


class Link(NamedTuple):
    """A fact, and the argument that it fills."""

    fact: str
    owner: str
    """The key of what has the argument, such as ``model.init_args.backbone``."""
    required: bool

    @property
    def target(self) -> str:
        """The argument's key."""
        return f"{self.owner}.init_args.{self.fact}"


def links(named: Mapping[str, type]) -> list[Link]:
    """The links for the classes that a command line names, by their keys."""
    facts = known_facts(EpisodicDataModule)
    return [
        Link(name, owner, needed)
        for owner, cls in named.items()
        if owner != "data"
        for name, needed in required(cls).items()
        if name in facts
    ]


def known_facts(base: Any) -> set[str]:
    """The facts of the benchmark `base` and of each that is derived from it and imported."""
    return {*base.every_fact(), *(f for cls in base.__subclasses__() for f in known_facts(cls))}


def required(cls: type) -> dict[str, bool]:
    """The arguments of a class, and whether each must be given."""
    found: dict[str, bool] = {}
    for parameters in signatures(cls):
        for parameter in parameters:
            found.setdefault(parameter.name, parameter.default is inspect.Parameter.empty)
    return found


def check_has(benchmark: type, link: Link, owner: type) -> None:
    """Refuse a benchmark that lacks a fact that something needs.

    Raises:
        FewshotError: it names the `owner` of the argument, and what goes together.
    """
    assert issubclass(benchmark, EpisodicDataModule)
    # one that another benchmark declares may just lie on a user's own
    if link.fact not in benchmark.every_fact() and not _states(benchmark, link.fact):
        every = ((e.name, e.cls) for e in benchmarks())
        has = [
            name
            for name, cls in every
            if issubclass(cls, EpisodicDataModule) and link.fact in cls.every_fact()
        ]
        such_as = f", such as {has[0]}" if has else ""
        remedy = f"another learner, or a benchmark that has it{such_as}"
        raise FewshotError(
            f"{owner.__name__} needs {link.fact}, which {benchmark.__name__} does not have; choose"
            f" {remedy if link.owner == 'model' else 'a backbone that fits'}"
        )


def _states(benchmark: type, fact: str) -> bool:
    """Whether a class has an attribute, or says that its objects have it."""
    return hasattr(benchmark, fact) or any(
        fact in vars(base).get("__annotations__", {}) for base in benchmark.__mro__
    )
