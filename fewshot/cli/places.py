"""Where the runs of a command lie, and what they are called: known before anything is built."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import Logger

from fewshot.callbacks.places import Place, names_for, place_for, stem_of


def place_of(
    config: Mapping[str, Any], named: Mapping[str, type], loggers: Sequence[Logger] | None = None
) -> Place | None:
    """Where the runs of a command lie (see `place_for`).

    Args:
        config: of the subcommand.
        named: the learner and the benchmark that it names.
        loggers: those of the Trainer; None: they are made of the config.

    Returns:
        None where that is no folder of this machine.
    """
    trainer = config["trainer"]
    if loggers is None:
        loggers = _built(trainer["logger"])
    root = str(trainer["default_root_dir"] or os.getcwd())
    names = names_for(config.get("run_name"), stem(config, named), loggers)
    return place_for(loggers, root, names)


def _built(settings: Any) -> list[Logger]:
    """The loggers that a config describes."""
    if not settings or settings is True:
        return []
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--logger", type=Logger | list[Logger])
    built = parser.instantiate_classes(parser.parse_object({"logger": settings})).logger
    return list(built) if isinstance(built, list) else [built]


def stem(config: Mapping[str, Any], named: Mapping[str, type]) -> str:
    """What a run is called by what its config says of it."""
    data = named["data"]
    given = config["data"].get("init_args") or {}
    benchmark = getattr(data, "benchmark", None) or data.__name__
    return stem_of(named["model"].__name__, str(benchmark), given.get("way"), given.get("shot"))
