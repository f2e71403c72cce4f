"""What a test leaves behind of each class: files, a picture, and figures for every logger."""

import re
from typing import Any

import lightning as L
import numpy as np
from rich.table import Table
from rich.text import Text

from fewshot.callbacks.figures import pixels, save
from fewshot.callbacks.loggers import log_image, log_table
from fewshot.callbacks.run_folder import run_folder
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.files.tables import printable, write_table
from fewshot.learners.base import MetaLearner
from fewshot.tasks.by_class import ClassResults
from fewshot.tasks.estimates import format_estimate

LOGGED = 100  # classes up to which each is a figure of its own for loggers
SHOWN = 12  # classes up to which all are printed
FEWEST = 5  # of more, those that are told least
UNTAKEN = re.compile(r"[^\w.\- /]")  # what MLflow does not take in a name
COLUMNS = ("class", "accuracy", "ci95", "episodes", "queries")
PAIRS = ("class", "predicted", "queries", "share")


def results_by_class(trainer: L.Trainer, learner: MetaLearner) -> ClassResults | None:
    """The last test's results by class; None where the benchmark's classes have no names."""
    datamodule = getattr(trainer, "datamodule", None)
    if learner.answers is None or not isinstance(datamodule, EpisodicDataModule):
        return None
    numbers = np.unique(learner.answers[:, 0].numpy()).tolist()
    names = datamodule.class_names("test", numbers)
    return None if names is None else learner.task.by_class(learner.answers, names)


def plain(found: ClassResults) -> dict[str, dict[str, Any]]:
    """Of each class what results.json holds."""
    values = {name: dict(zip(COLUMNS[1:], of, strict=True)) for name, *of in found.table()}
    return {name: values[name] for name in found.names}


def leave(found: ClassResults, trainer: L.Trainer) -> None:
    """Write `classes.csv`, `confusion.csv` and `confusion.png`, and send them to the loggers."""
    folder = run_folder(trainer)
    for name, columns, rows in (
        ("classes", COLUMNS, found.table()),
        ("confusion", PAIRS, found.confusion()),
    ):
        write_table(folder / f"{name}.csv", [columns, *rows])
        path, of_classes = folder / f"{name}.csv", name == "classes"
        log_table(path, columns, rows, trainer, f"test/{name}", board=of_classes)
    image = pixels(found.picture, dpi=100)
    if image is not None:
        save(image, folder / "confusion.png")
        log_image(image, trainer, "test/confusion")
    figures: dict[str, float] = {}
    for name, mean, ci95, _, _ in found.table() if len(found.names) <= LOGGED else ():
        place = f"test/class/{UNTAKEN.sub('_', printable(name))}"
        figures |= {place: mean, f"{place}_ci95": ci95}
    for logger in trainer.loggers if figures else ():
        logger.log_metrics(figures, step=trainer.global_step)
        logger.save()


def class_table(found: ClassResults, unit: str) -> Table:
    """The accuracies by class, lowest first; of many classes those that are told least."""
    rows = found.table()
    shown = rows if len(rows) <= SHOWN else rows[:FEWEST]
    rest = len(rows) - len(shown)
    note = f"the {FEWEST} of {len(rows)} told least; others in classes.csv" if rest else None
    table = Table(caption=note)
    table.add_column("class", overflow="fold")
    table.add_column("accuracy ± 95 % CI", justify="right")
    for name, mean, ci95, _, _ in shown:
        table.add_row(Text(printable(name)), format_estimate(mean, ci95, unit))
    return table
