"""Options of a run that are neither the learner's, the benchmark's nor the Trainer's."""

import argparse

from jsonargparse import ArgumentParser, Namespace

from fewshot.cli.fit_options import OPTIONS
from fewshot.datamodules import ClassificationDataModule
from fewshot.engine.allocation import keep_freed_memory
from fewshot.errors import FewshotError


def add_run_options(parser: ArgumentParser, subcommand: str) -> None:
    """Add them to the parser of `subcommand`.

    Each takes all of them, those that are not its own without a word: the config.yaml of a fit is a
    config for the others too.
    """
    for option in OPTIONS:
        shown = option.text if subcommand in option.commands else argparse.SUPPRESS
        parser.add_argument(
            f"--{option.name}", type=option.kind, default=option.default, help=shown
        )
    parser.set_defaults(weights_only=True)  # a checkpoint holds plain values alone
    if subcommand in ("validate", "test"):
        parser.set_defaults(verbose=False)  # `ResultsWriter` prints the table


def apply_run_options(config: Namespace, benchmark: type) -> None:
    """Hand the file of test episodes to the benchmark, whose config then has it; keep memory.

    Raises:
        FewshotError: the benchmark takes no such file.
    """
    if config.get("freed_memory") == "small":
        keep_freed_memory(largest=False)
    file, config["episodes"] = config.get("episodes"), None
    if file is None:
        return
    if not issubclass(benchmark, ClassificationDataModule):
        raise FewshotError(
            f"episodes is {file}, but {benchmark.__name__} draws its test episodes and takes no"
            " file; leave it out, or choose a benchmark of classes of images or texts"
        )
    config["data.init_args.test_episodes"] = file
