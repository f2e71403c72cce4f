"""What `fewshot predict` leaves behind: one row a query."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor

from fewshot.callbacks.loggers import log_table
from fewshot.callbacks.run_folder import run_folder
from fewshot.episodes.types import MetaBatch
from fewshot.files import atomic_write
from fewshot.files.tables import write_table
from fewshot.learners.base import MetaLearner
from fewshot.learners.outcome import Outcome
from fewshot.tasks.base import Task


class PredictionWriter(Callback):
    """Write `predictions.csv` after a prediction run: episode, query, and what the task kind says.

    Its columns are `Task.prediction_columns`: the target and the prediction, for classes with its
    probability, for candidates with the rank of the right one, and so on. What is an image, such as
    a predicted mask, whose values are labels, becomes a file of its own that the row names. Each
    rank of several writes its own file, ``predictions_rank1.csv`` and so on.
    """

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []
        self.episodes = 0

    def on_predict_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Begin with no rows."""
        self.rows, self.episodes = [], 0

    def on_predict_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: list[Outcome],
        batch: MetaBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the rows of a meta-batch."""
        assert isinstance(pl_module, MetaLearner)
        batch = MetaBatch.of(batch)
        numbers = batch.numbers
        if numbers is None:
            numbers = pl_module.next_numbers(self.episodes, batch.size)
        self.episodes += batch.size
        temperature = (pl_module.task.has_probabilities and pl_module.softmax_temperature) or 1.0
        predictions = [
            one for outcome in outputs for one in outcome.outputs.float().cpu() / temperature
        ]
        labels = [targets for part in batch.parts for targets in part.query.targets.cpu()]
        for one, targets, number in zip(predictions, labels, numbers.tolist(), strict=True):
            columns = _columns(pl_module.task, one, targets, run_folder(trainer), number)
            self.rows += [
                (number, query, *row) for query, row in enumerate(zip(*columns, strict=True))
            ]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file."""
        assert isinstance(pl_module, MetaLearner)
        suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = run_folder(trainer) / f"predictions{suffix}.csv"
        names = ("episode", "query", *pl_module.task.prediction_columns)
        write_table(path, [names, *self.rows])
        if trainer.is_global_zero:
            log_table(path, names, self.rows, trainer, f"predict/{path.stem}")
        print(f"predictions: {path}")


def _columns(
    task: Task, outputs: Tensor, targets: Tensor, run: Path, number: int
) -> list[Sequence[Any]]:
    """The values of the task kind's columns for one episode; images are written to their folder."""
    found: list[Sequence[Any]] = []
    values = task.predictions(outputs, targets)
    for name, column in zip(task.prediction_columns, values, strict=True):
        folder = task.image_folders.get(name)
        if folder is None:
            found.append(column.tolist() if isinstance(column, Tensor) else column)
        else:
            found.append(_saved(column, run, f"{folder}/episode{number}_query"))
    return found


def _saved(images: Sequence[Any] | Tensor, run: Path, start: str) -> list[str]:
    """Write images (Q, H, W) of labels; gives their places in the run's folder."""
    names = [f"{start}{query}.png" for query in range(len(images))]
    for name, image in zip(names, images, strict=True):
        with atomic_write(run / name, binary=True) as file:
            Image.fromarray(image.numpy()).save(file, format="PNG")
    return names
