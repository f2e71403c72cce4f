"""What `fewshot predict` leaves behind: one row a query."""

import csv
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from PIL import Image
from torch import Tensor

from fewshot.callbacks.results import run_folder
from fewshot.episodes.types import MetaBatch, stacked
from fewshot.files import atomic_write
from fewshot.learners.base import MetaLearner, Outcome
from fewshot.tasks import Classification, GaussianRegression, Ranking, Segmentation, mean_ranks
from fewshot.tasks.masks import IGNORED, at_size


class PredictionWriter(Callback):
    """Write `predictions.csv` after a prediction run: episode, query, target, prediction.

    Classification: the label, the predicted label and its probability. Regression: the target and
    the output, and its standard deviation where the learner predicts one. Segmentation: the pixels
    of the query's mask that are counted, the share of them labelled right, and where the predicted
    mask lies, an image whose values are labels. Ranking: the right candidate and the first one,
    both by their column in the scores, and the rank of the right one. Each rank of several writes
    its own file, ``predictions_rank1.csv`` and so on.
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
        predictions = [one for outcome in outputs for one in outcome.outputs.float().cpu()]
        labels = [targets for part in stacked(batch) for targets in part.query.targets.cpu()]
        for one, targets in zip(predictions, labels, strict=True):
            number = trainer.global_rank + trainer.world_size * self.episodes
            self.episodes += 1
            columns: list[list[Any]]
            if isinstance(pl_module.task, Segmentation):
                masks = at_size(one, targets).argmax(1)
                counted = targets != IGNORED
                right = ((masks == targets) & counted).sum((1, 2)) / counted.sum((1, 2)).clamp(
                    min=1
                )
                columns = [
                    counted.sum((1, 2)).tolist(),
                    right.tolist(),
                    self._save(trainer, number, masks),
                ]
            elif isinstance(pl_module.task, Classification):
                probability, predicted = one.softmax(-1).max(-1)
                columns = [
                    pl_module.task.labels(targets).tolist(),
                    predicted.tolist(),
                    probability.tolist(),
                ]
            elif isinstance(pl_module.task, Ranking):
                columns = [
                    targets.tolist(),
                    one.argmax(-1).tolist(),
                    mean_ranks(one, targets).tolist(),
                ]
            else:
                density = isinstance(pl_module.task, GaussianRegression)
                parts = [targets, *(one.chunk(2, -1) if density else [one])]
                columns = [torch.squeeze(part, -1).tolist() for part in parts]
            self.rows += [
                (number, query, *row) for query, row in enumerate(zip(*columns, strict=True))
            ]

    def _save(self, trainer: L.Trainer, number: int, masks: Tensor) -> list[str]:
        """Write the masks (Q, H, W) of an episode; gives their places in the run's folder."""
        folder = run_folder(trainer) / "masks"
        folder.mkdir(parents=True, exist_ok=True)
        names = [f"masks/episode{number}_query{query}.png" for query in range(len(masks))]
        for name, mask in zip(names, masks, strict=True):
            Image.fromarray(mask.to(torch.uint8).numpy()).save(run_folder(trainer) / name)
        return names

    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the file."""
        assert isinstance(pl_module, MetaLearner)
        classification = isinstance(pl_module.task, Classification)
        suffix = f"_rank{trainer.global_rank}" if trainer.world_size > 1 else ""
        path = run_folder(trainer) / f"predictions{suffix}.csv"
        with atomic_write(path) as file:
            writer = csv.writer(file)
            names = (
                ["label", "predicted", "probability"] if classification else ["target", "predicted"]
            )
            if isinstance(pl_module.task, Segmentation):
                names = ["pixels", "right", "mask"]
            names += ["deviation"] if isinstance(pl_module.task, GaussianRegression) else []
            names += ["rank"] if isinstance(pl_module.task, Ranking) else []
            writer.writerow(("episode", "query", *names))
            writer.writerows(self.rows)
        print(f"predictions: {path}")
