"""What `fewshot predict` leaves behind: one row a query."""

import csv
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback

from fewshot.callbacks.results import run_folder
from fewshot.datasets.files import written_whole
from fewshot.episodes import Episode
from fewshot.learners.base import MetaLearner, Outcome
from fewshot.tasks import Classification, GaussianRegression


class PredictionWriter(Callback):
    """Write `predictions.csv` after a prediction run: the episode, the query, its target and what was predicted.

    Classification: the label, the predicted label and its probability. Regression: the target and the output, and its
    standard deviation where the learner predicts one.
    Each rank of several writes its own file, ``predictions_rank1.csv`` and so on.
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
        outputs: Outcome,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect the rows of a meta-batch."""
        assert isinstance(pl_module, MetaLearner)
        for one, targets in zip(outputs.outputs.float().cpu(), batch.query.targets.cpu(), strict=True):
            number = trainer.global_rank + trainer.world_size * self.episodes
            self.episodes += 1
            if isinstance(pl_module.task, Classification):
                probability, predicted = one.softmax(-1).max(-1)
                columns = [pl_module.task.labels(targets).tolist(), predicted.tolist(), probability.tolist()]
            else:
                density = isinstance(pl_module.task, GaussianRegression)
                parts = [targets, *(one.chunk(2, -1) if density else [one])]
                columns = [torch.squeeze(part, -1).tolist() for part in parts]
            self.rows += [(number, query, *row) for query, row in enumerate(zip(*columns, strict=True))]

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file."""
        assert isinstance(pl_module, MetaLearner)
        classification = isinstance(pl_module.task, Classification)
        suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = run_folder(trainer) / f"predictions{suffix}.csv"
        with written_whole(path) as file:
            writer = csv.writer(file)
            names = ["label", "predicted", "probability"] if classification else ["target", "predicted"]
            names += ["deviation"] if isinstance(pl_module.task, GaussianRegression) else []
            writer.writerow(("episode", "query", *names))
            writer.writerows(self.rows)
        print(f"predictions: {path}")
