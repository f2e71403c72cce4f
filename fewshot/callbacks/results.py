"""What a test leaves behind: results.json, episodes.csv, and a table on the screen."""

import csv
import json
import math
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datasets.files import written_whole
from fewshot.learners.base import MetaLearner

LIBRARIES = ("fewshot", "torch", "torchvision", "lightning", "torchmetrics", "numpy")


def run_folder(trainer: L.Trainer) -> Path:
    """The folder of this run: its logger's, or else the Trainer's root.

    The Trainer's own `log_dir` waits for all ranks; this may be asked for by one.
    """
    logger = trainer.logger
    found = None if logger is None else getattr(logger, "log_dir", None) or logger.save_dir
    return Path(found or trainer.default_root_dir)


def results(trainer: L.Trainer, learner: MetaLearner) -> dict[str, Any]:
    """The results of the last test as plain values: protocol, provenance and every metric's mean and interval."""
    datamodule = getattr(trainer, "datamodule", None)
    protocol = datamodule.protocol() if isinstance(datamodule, EpisodicDataModule) else {}
    facts = dict.fromkeys(("benchmark", "split", "way", "shot", "queries", "seed"))
    return {
        **facts,
        **protocol,
        "learner": type(learner).__name__,
        "backbone": type(learner.backbone).__name__,
        "episodes": len(learner.columns["test"]["episode"]),
        "batchnorm": learner.batchnorm,
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else learner.weights_file,
        "global_step": _trained_steps(trainer, learner),
        "precision": str(trainer.precision),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}},
        "metrics": {
            name: {"mean": mean, "ci95": None if math.isnan(ci95) else ci95}
            for name, (mean, ci95) in learner.estimates["test"].items()
        },
    }


def _trained_steps(trainer: L.Trainer, learner: MetaLearner) -> int:
    """The meta-steps behind the weights that were tested: the checkpoint's, where they come from one."""
    return learner.loaded_step if trainer.ckpt_path or not trainer.global_step else trainer.global_step


def results_table(result: dict[str, Any]) -> Table:
    """The main metrics of a test with their 95 % confidence intervals; accuracies in per cent."""
    way = f"{result['way']}-way " if result["way"] else ""
    split = f" ({result['split']})" if result["split"] else ""
    table = Table(
        title=f"{result['learner']} on {result['benchmark'] or 'own data'}{split}, {way}{result['shot']}-shot",
        caption=f"{result['episodes']} test episodes, seed {result['seed']}, {result['batchnorm']} batch norm",
    )
    table.add_column("metric")
    table.add_column("mean ± 95 % CI", justify="right")
    for name, estimate in result["metrics"].items():
        percent = name.startswith("accuracy")
        scale, unit = (100.0, " %") if percent else (1.0, "")
        ci95 = "?" if estimate["ci95"] is None else f"{scale * estimate['ci95']:.2f}"
        table.add_row(name, f"{scale * estimate['mean']:.2f} ± {ci95}{unit}")
    return table


class ResultsWriter(Callback):
    """Write `results.json` and `episodes.csv` into the run's folder after a test, and print the table."""

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print the results of the test that has just ended."""
        if not isinstance(pl_module, MetaLearner):
            return
        folder = run_folder(trainer)
        result = results(trainer, pl_module)
        with written_whole(folder / "results.json") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
        columns = pl_module.columns["test"]
        with written_whole(folder / "episodes.csv") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
        console = Console()
        console.print(results_table(result))
        console.print(f"run:         {folder}", soft_wrap=True)
        console.print(f"tensorboard: tensorboard --logdir {folder}", soft_wrap=True)
