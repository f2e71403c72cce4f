"""Step time and episodes a second of all learners with a config on a benchmark, train and test.

    python benchmarks/learners.py --root DATA            # the 5-way 1-shot configs on Omniglot
    python benchmarks/learners.py --benchmark glyphs     # needs no data python
    benchmarks/learners.py --benchmark fewglue --shape "" --root DATA -- --data.tokenizer MODEL

Each config is tested on some episodes, and then runs as it is for a few steps (the first, in which
a compiler may work, is left out). Learners of the transfer family train on plain examples, so that
their training speed is in examples; the steps of those that learn when they are tested are the
gradient steps on one support. What follows `--` goes to `fewshot`.
"""

import argparse
import contextlib
import io
import logging
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.optim.optimizer import register_optimizer_step_post_hook

from fewshot.cli.lightning import FewshotCLI
from fewshot.cli.main import run
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.transfer.language import LanguageLearner

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
QUIET = (
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
)


class Speed(NamedTuple):
    """What is measured of a learner; nan where it does not train."""

    learner: str
    step: float  # seconds
    training: float  # episodes a second
    evaluation: float


def measure(config: Path, options: list[str], steps: int, episodes: int) -> Speed:
    """The speed of the config's learner."""
    arguments = [f"--config={config}", *options, *QUIET]
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        # what a run leaves behind would land in the working directory
        arguments += [f"--trainer.default_root_dir={folder}"]
        cli = run(["test", *arguments, f"--data.test_episodes={episodes}"])
        assert isinstance(cli, FewshotCLI)
        learner = cli.model
        # of a single meta-batch, which holds the first step, there is no speed
        evaluation = float(cli.trainer.callback_metrics.get("test/episodes_per_second", torch.nan))
        if isinstance(learner, LanguageLearner):
            support = cli.datamodule.stream("test")[0].support
            return Speed(
                type(learner).__name__, adaptation_step(learner, support), torch.nan, evaluation
            )
        if (
            not any(weight.requires_grad for weight in learner.parameters())
            or learner.trains_on == "nothing"
        ):
            return Speed(type(learner).__name__, torch.nan, torch.nan, evaluation)
        limits = [
            f"--trainer.limit_train_batches={steps}",
            "--test_after_fit=false",
            "--trainer.max_epochs=1",
        ]
        try:
            cli = run(
                [
                    "fit",
                    *arguments,
                    *limits,
                    "--trainer.num_sanity_val_steps=0",
                    "--trainer.limit_val_batches=0",
                ]
            )
        except FewshotError as error:
            print(f"{config.name} is not trained: {error}", file=sys.stderr)
            return Speed(type(learner).__name__, torch.nan, torch.nan, evaluation)
        assert isinstance(cli, FewshotCLI)
        training = float(cli.trainer.callback_metrics["train/episodes_per_second"])
        meta_batch = next(iter(cli.datamodule.train_dataloader())).size
    return Speed(type(learner).__name__, meta_batch / training, training, evaluation)


def adaptation_step(learner: LanguageLearner, support: Examples) -> float:
    """Seconds of a gradient step of a learner that trains on each support."""
    done = 0

    def add(*_: object) -> None:
        nonlocal done
        done += 1

    with register_optimizer_step_post_hook(add):
        start = time.perf_counter()
        learner.adapt(support)
    return (time.perf_counter() - start) / done


def main() -> None:
    """Measure each config and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmark", default="omniglot", help="a folder of configs/")
    parser.add_argument("--shape", default="5way1shot", help="how the configs' names end")
    parser.add_argument(
        "--root", help="the folder with its data; the benchmark's own default without it"
    )
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        help="learners' configs, such as protonet and maml; all without it",
    )
    parser.add_argument("--steps", type=int, default=10, help="training steps of each")
    parser.add_argument("--episodes", type=int, default=160, help="test episodes of each")
    parser.add_argument("--threads", type=int, help="of torch; its own choice without it")
    parser.add_argument("options", nargs="*", help="options of `fewshot`, after --")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    options = [*([f"--data.root={arguments.root}"] if arguments.root else []), *arguments.options]
    table = Table(
        title=(
            f"{arguments.benchmark} {arguments.shape}, {torch.get_num_threads()} threads, torch"
            f" {torch.__version__}"
        )
    )
    for column in (
        "config",
        "learner",
        "a step, ms",
        "training, episodes/s",
        "evaluation, episodes/s",
    ):
        table.add_column(column, justify="left" if column in ("config", "learner") else "right")
    for config in sorted((CONFIGS / arguments.benchmark).glob(f"*{arguments.shape}.yaml")):
        name = config.stem.removesuffix(f"_{arguments.shape}")
        if not arguments.only or name in arguments.only:
            speed = measure(config, options, arguments.steps, arguments.episodes)
            cells = (1000 * speed.step, speed.training, speed.evaluation)
            table.add_row(
                name, speed.learner, *("-" if math.isnan(cell) else f"{cell:.1f}" for cell in cells)
            )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
