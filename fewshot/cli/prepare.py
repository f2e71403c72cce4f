"""`fewshot prepare`: what takes long, done once: a benchmark's download, caches, packed store."""

import argparse
from collections.abc import Sequence
from typing import Any

# not in `__all__`
from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]
from rich.console import Console

from fewshot.callbacks.quiet import silence_what_users_cannot_mend
from fewshot.cli.arguments import TOP_LEVEL
from fewshot.cli.catalogue import import_all
from fewshot.cli.named import named_classes
from fewshot.datamodules import ClassificationDataModule, EpisodicDataModule


def prepare(args: Sequence[str]) -> EpisodicDataModule:
    """Prepare the benchmark that ``--data`` or a config names, and print what it holds.

    Args:
        args: the command line after ``prepare``. The config of an experiment will do: its learner
            and its trainer are not built.

    Returns:
        The prepared benchmark.
    """
    silence_what_users_cannot_mend()
    import_all()  # their short names are known then
    named_classes(["prepare", *args])  # says what is wrong with an import path
    parser = ArgumentParser(
        prog="fewshot prepare",
        description=(
            "Download, decode, cache and check a benchmark's data, so that a run can start at once."
        ),
        exit_on_error=False,
    )
    parser.add_argument(
        "--config",
        action=ActionConfigFile,
        help="A config file; what it says beside `data` is ignored.",
    )
    ignored = set(TOP_LEVEL) - {"config", "data"}
    for key in ignored:
        parser.add_argument(f"--{key}", type=Any, help=argparse.SUPPRESS)
    parser.add_subclass_arguments(EpisodicDataModule, "data", required=True, help="The benchmark.")
    config = parser.parse_args(list(args))
    for key in ignored:
        del config[key]  # not built
    data: EpisodicDataModule = parser.instantiate_classes(config).data
    data.prepare()
    console = Console()
    console.print(f"{data.benchmark} is prepared.", soft_wrap=True)
    if isinstance(data, ClassificationDataModule):
        for split, dataset in data.datasets.items():
            console.print(
                f"{split}: {len(dataset.classes)} classes, {dataset.counts.sum()} examples",
                highlight=False,
            )
    return data
