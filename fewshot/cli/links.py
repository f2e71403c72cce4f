"""Which arguments of the learner and its networks the facts of a benchmark fill.

A benchmark declares its facts (`EpisodicDataModule.facts`); they go to every argument of the same
name. So a fact is asked for only where something needs it: to know some, data must be read.
"""

import inspect
from collections.abc import Mapping
from typing import Any, NamedTuple

from fewshot.datamodules import EpisodicDataModule
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
