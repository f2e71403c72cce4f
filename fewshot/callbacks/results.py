"""What a test or a validation leaves: results.json, episodes.csv, and a table on the screen."""

import json
import math
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console
from torch import Tensor

from fewshot.callbacks.by_class import class_table, leave, plain, results_by_class
from fewshot.callbacks.interruption import is_partial
from fewshot.callbacks.loggers import log_table
from fewshot.callbacks.memorisation import figures_of
from fewshot.callbacks.results_table import results_table
from fewshot.callbacks.run_folder import run_folder
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datamodules.sources import SourcesDataModule
from fewshot.episodes.streams import Stage
from fewshot.extras import DISTRIBUTION
from fewshot.files import atomic_write
from fewshot.files.tables import write_table
from fewshot.learners.base import MetaLearner
from fewshot.tasks import Classification
from fewshot.tasks.by_class import ClassResults
from fewshot.tasks.estimates import Estimate

LIBRARIES = ("torch", "torchvision", "lightning", "torchmetrics", "numpy")


def results(
    trainer: L.Trainer,
    learner: MetaLearner,
    seconds: float,
    classes: ClassResults | None = None,
    stage: Stage = "test",
) -> dict[str, Any]:
    """The last test's results, or validation's, as plain values.

    Protocol, provenance and metrics (mean, interval, deviation).

    Args:
        trainer: what has run the test.
        learner: what was tested.
        seconds: how long the test took.
        classes: the results by class, where classes have names.
        stage: ``test`` or ``val``.
    """
    datamodule = getattr(trainer, "datamodule", None)
    protocol = datamodule.protocol() if isinstance(datamodule, EpisodicDataModule) else {}
    if stage == "val":
        protocol = _of_validation(protocol, datamodule)
    facts = dict.fromkeys(("benchmark", "split", "way", "shot", "queries", "seed"))
    found = {
        **facts,
        **protocol,
        "learner": type(learner).__name__,
        "backbone": type(learner.backbone).__name__,
        "episodes": len(learner.columns[stage]["episode"]),
        "partial": is_partial(trainer),
        "batchnorm": learner.batchnorm,
        **learner.facts(),
        **balance(datamodule, learner),
        "checkpoint": str(trainer.ckpt_path) if trainer.ckpt_path else learner.weights_file,
        "untrained": learner.untrained,
        "global_step": _trained_steps(trainer, learner),
        # of training, where `seed` is that of the data; a checkpoint knows its own
        "seed_everything": learner.seed,
        "precision": str(trainer.precision),
        "parameters": sum(parameter.numel() for parameter in learner.parameters()),
        "seconds": seconds,
        "versions": {
            "python": platform.python_version(),
            "fewshot": version(DISTRIBUTION),
            **{name: version(name) for name in LIBRARIES},
        },
        "metrics": _plain(learner.estimates[stage], learner.columns[stage]),
        # what `fewshot compare` goes by, which knows no task kind
        "units": {
            name: unit for name in learner.estimates[stage] if (unit := learner.task.unit(name))
        },
        **figures_of(trainer),
        "monitor": dict(zip(("metric", "mode"), learner.task.monitor, strict=True)),
        # of the probabilities, over all queries of all episodes
        **({"calibration": of} if (of := learner.calibration.get(stage)) else {}),
        **(
            {
                "sources": {
                    name: _plain(of)
                    for name, of in source_estimates(datamodule, learner, stage).items()
                }
            }
            if isinstance(datamodule, SourcesDataModule)
            else {}
        ),
        **({} if classes is None else {"by_class": plain(classes)}),
    }
    return {name: strict(value) for name, value in found.items()}


def _of_validation(protocol: Mapping[str, Any], datamodule: Any) -> dict[str, Any]:
    """The facts of a benchmark's validation, by those of its test."""
    facts = {name: of for name, of in protocol.items() if not name.startswith("test_episodes")}
    if facts != protocol:  # sizes are those of the file that lists the test's
        sizes = dict(zip(("way", "shot", "queries"), datamodule.sizes("val"), strict=True))
        facts |= {**sizes, "seed": datamodule.seed}
    if "val_way" in facts:
        facts["way"] = facts.pop("val_way")
    return {**facts, "stage": "validation"}


def balance(datamodule: Any, learner: MetaLearner) -> dict[str, bool | None]:
    """Whether there are as many queries of each class, where queries are read together.

    None: nobody knows.
    """
    together = learner.facts().get("transductive") or learner.batchnorm == "transductive"
    if not together or not isinstance(learner.task, Classification):
        return {}
    return {"balanced_queries": getattr(datamodule, "balanced_queries", None)}


def strict(value: Any) -> Any:
    """Plain values as JSON (RFC 8259) has them: null for the numbers that are not finite.

    >>> strict({"mean": float("nan"), "curve": (0.5, float("inf"))})
    {'mean': None, 'curve': [0.5, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: strict(of) for name, of in value.items()}
    return [strict(of) for of in value] if isinstance(value, (list, tuple)) else value


def source_estimates(
    datamodule: SourcesDataModule, learner: MetaLearner, stage: Stage
) -> dict[str, dict[str, Estimate]]:
    """The mean of every metric over the episodes of each source that were evaluated last."""
    columns = learner.columns[stage]
    owners = datamodule.source_of(stage, columns["episode"])
    rows = {
        name: [i for i, owner in enumerate(owners) if owner == name]
        for name in dict.fromkeys(owners)
    }
    metrics = {name: values for name, values in columns.items() if name != "episode"}
    return {
        name: learner.task.estimates({m: values[of] for m, values in metrics.items()})
        for name, of in rows.items()
    }


def _plain(
    estimates: Mapping[str, Estimate], columns: Mapping[str, Tensor] | None = None
) -> dict[str, dict[str, float | None]]:
    """Estimates as plain values, with the deviation over episodes of those that have a column.

    The columns are those of the table.
    """
    found: dict[str, dict[str, float | None]] = {}
    for name, (mean, ci95) in estimates.items():
        known = not math.isnan(ci95)
        found[name] = {"mean": mean, "ci95": ci95 if known else None}
        if columns is not None and name in columns:
            column = columns[name].double()
            found[name]["std"] = column.std().item() if len(column) > 1 else None
    return found


def _trained_steps(trainer: L.Trainer, learner: MetaLearner) -> int:
    """The meta-steps behind the tested weights: the checkpoint's, where they come from one."""
    return (
        learner.loaded_step if trainer.ckpt_path or not trainer.global_step else trainer.global_step
    )


class ResultsWriter(Callback):
    """Write what a test leaves behind to the run's folder, and print the main of it.

    `results.json`, `episodes.csv`; where classes have names `classes.csv` and `confusion.csv` too.
    A validation by itself leaves the first two, where the folder has no test's.
    """

    def __init__(self) -> None:
        self._started, self._seconds = 0.0, 0.0

    def on_test_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the clock."""
        self._started = time.perf_counter()

    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look again: pictures and files are not the test's."""
        self._seconds = time.perf_counter() - self._started

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the clock."""
        self.on_test_epoch_start(trainer, pl_module)

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look again."""
        self.on_test_epoch_end(trainer, pl_module)

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write and print the results of the test that has just ended."""
        if isinstance(pl_module, MetaLearner):
            classes = results_by_class(trainer, pl_module)
            self._leave(trainer, pl_module, "test", classes)

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """The same of a validation that belongs to no training."""
        if isinstance(pl_module, MetaLearner) and trainer.state.fn == TrainerFn.VALIDATING:
            self._leave(trainer, pl_module, "val")

    def _leave(
        self,
        trainer: L.Trainer,
        learner: MetaLearner,
        stage: Stage,
        classes: ClassResults | None = None,
    ) -> None:
        folder = run_folder(trainer)
        result = results(trainer, learner, self._seconds, classes, stage)
        console = Console()
        console.print(results_table(result))
        is_dry = trainer.fast_dev_run  # type: ignore[attr-defined]  # set from outside
        if stage == "val" and is_dry:  # which has no folder of its own
            return
        if stage == "val" and _has_tests(folder):
            console.print(f"not written: {folder} has the results of a test", soft_wrap=True)
            return
        _write(folder, result, learner.columns[stage], trainer, stage)
        if classes is not None:
            leave(classes, trainer)
            console.print(class_table(classes, learner.task.unit("accuracy")))
        console.print(f"run:         {folder}", soft_wrap=True)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                console.print(
                    f"tensorboard: tensorboard --logdir {logger.root_dir}", soft_wrap=True
                )


def _has_tests(folder: Path) -> bool:
    """Whether a folder has the results of a test, which those of a validation would replace."""
    file = folder / "results.json"
    return file.exists() and "stage" not in json.loads(file.read_text(encoding="utf-8"))


def _write(
    folder: Path,
    result: Mapping[str, Any],
    columns: Mapping[str, Tensor],
    trainer: L.Trainer,
    stage: Stage,
) -> None:
    """Write `results.json` and `episodes.csv`, and send them to the loggers."""
    with atomic_write(folder / "results.json") as file:
        json.dump(result, file, indent=2, allow_nan=False)
        file.write("\n")
    metrics = [(name, of["mean"], of["ci95"]) for name, of in result["metrics"].items()]
    titles = ("metric", "mean", "ci95")
    log_table(folder / "results.json", titles, metrics, trainer, f"{stage}/results")
    if of := result.get("calibration"):
        figures = {f"{stage}/{name}": of[name] for name in ("ece", "brier", "nll")}
        for logger in trainer.loggers:
            logger.log_metrics(figures, trainer.global_step)
    rows = [*zip(*(column.tolist() for column in columns.values()), strict=True)]
    write_table(folder / "episodes.csv", [tuple(columns), *rows])
    log_table(folder / "episodes.csv", [*columns], rows, trainer, f"{stage}/episodes")
