"""Options of a run that are neither the learner's, the benchmark's nor the Trainer's."""

import argparse
from typing import Any, Literal, TypeAlias

from jsonargparse import ArgumentParser, Namespace

from fewshot.datamodules import ClassificationDataModule
from fewshot.engine.allocation import keep_freed_memory
from fewshot.errors import FewshotError

FreedMemory: TypeAlias = Literal["all", "small"]

TEST_AFTER_FIT = "Test the best checkpoint when training is done."
EPISODES = "Test on the episodes of this file, not on drawn ones: short for `data.test_episodes`."
RUN_NAME = (
    "What the run's folder is called, followed by the next number; default: learner, benchmark, way"
    " and shot. `version` gives Lightning's `version_0`, `version_1`, ..."
)
FREED_MEMORY = (
    "What freed memory is kept for the next step (Linux): all, or blocks up to 32 MiB (small),"
    " which is slower on large batches and needs less memory."
)


def add_run_options(parser: ArgumentParser, subcommand: str) -> None:
    """Add them to the parser of `subcommand`.

    Each takes all of them, those that are not its own without a word: the config.yaml of a fit is a
    config for the others too.
    """

    def add(name: str, kind: Any, default: Any, text: str, commands: tuple[str, ...]) -> None:
        shown = text if subcommand in commands else argparse.SUPPRESS
        parser.add_argument(f"--{name}", type=kind, default=default, help=shown)

    every = ("fit", "validate", "test", "predict")
    add("test_after_fit", bool, True, TEST_AFTER_FIT, ("fit",))
    add("episodes", str | None, None, EPISODES, ("fit", "test", "predict"))
    add("run_name", str | None, None, RUN_NAME, every)
    add("freed_memory", FreedMemory, "all", FREED_MEMORY, every)
    parser.set_defaults(weights_only=True)  # a checkpoint holds plain values alone
    if subcommand == "test":
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
