"""Episodes a second of every learner with a config on a benchmark, in training and in evaluation.

    python benchmarks/learners.py --root DATA            # the 5-way 1-shot configs on Omniglot
    python benchmarks/learners.py --benchmark glyphs     # needs no data

Each config runs as it is for a few steps (the first, in which a compiler may work, is left out) and then evaluates test
episodes. Learners of the transfer family train on plain examples, so that their training speed is in examples.
"""

import argparse
import contextlib
import io
import logging
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from fewshot.main import FewshotCLI, run

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
QUIET = (
    "--trainer.logger=false",
    "--trainer.enable_checkpointing=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--trainer.num_sanity_val_steps=0",
    "--trainer.limit_val_batches=0",
    "--trainer.max_epochs=1",
    "--test_after_fit=false",
)


def measure(config: Path, options: list[str], steps: int, episodes: int) -> tuple[str, float, float]:
    """The learner's name, and its episodes a second in training and in evaluation."""
    arguments = [f"--config={config}", *options, *QUIET, f"--data.test_episodes={episodes}"]
    with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
        # what a run leaves behind would land in the working directory
        cli = run(["fit", *arguments, f"--trainer.limit_train_batches={steps}", f"--trainer.default_root_dir={folder}"])
        assert isinstance(cli, FewshotCLI)
        training = float(cli.trainer.callback_metrics.get("train/episodes_per_second", torch.nan))
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
    return type(cli.model).__name__, training, float(cli.trainer.callback_metrics["test/episodes_per_second"])


def main() -> None:
    """Measure each config and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--benchmark", default="omniglot", help="a folder of configs/")
    parser.add_argument("--root", help="the folder with its data; the benchmark's own default without it")
    parser.add_argument(
        "--only", nargs="*", default=[], help="learners' configs, such as protonet and maml; all without it"
    )
    parser.add_argument("--steps", type=int, default=10, help="training steps of each")
    parser.add_argument("--episodes", type=int, default=160, help="test episodes of each")
    parser.add_argument("--threads", type=int, help="of torch; its own choice without it")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    logging.getLogger("lightning").setLevel(logging.ERROR)
    options = [f"--data.root={arguments.root}"] if arguments.root else []
    table = Table(
        title=f"{arguments.benchmark}, 5-way 1-shot, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for column in ("config", "learner", "training, episodes/s", "evaluation, episodes/s", "600 test episodes, s"):
        table.add_column(column, justify="left" if column in ("config", "learner") else "right")
    for config in sorted((CONFIGS / arguments.benchmark).glob("*_5way1shot.yaml")):
        name = config.stem.removesuffix("_5way1shot")
        if (arguments.only and name not in arguments.only) or name == "simple_shot":  # that one has nothing to train
            continue
        learner, training, evaluation = measure(config, options, arguments.steps, arguments.episodes)
        table.add_row(name, learner, f"{training:.1f}", f"{evaluation:.1f}", f"{600 / evaluation:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
