"""Evaluation by episodes: a row each in a table, means with their intervals at the end."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fewshot.episodes.loader import share
from fewshot.episodes.types import Episode, MetaBatch, map_tensors
from fewshot.learners.confidence import Confidence
from fewshot.learners.outcome import Outcome, joined_outcomes
from fewshot.learners.table import AnswerTable, EpisodeTable
from fewshot.tasks import Task
from fewshot.tasks.estimates import Estimate


class Evaluation(L.LightningModule):
    """Mix-in: validation, test and prediction over a benchmark's episodes.

    Attributes:
        columns: the table of the last validation (``val``) and test, (E,) by name.
        estimates: the results made of it, by name.
        answers: of each query of the last test the number of its episode, its label and its answer,
            (Q, 3), as `Task.answers` says; None where the classes have no names.
        softmax_temperature: what logits are divided by before they are made probabilities; chosen
            at each validation, and kept in checkpoints. None: not known.
        last_validation: the accuracy of the last validation's episodes, with their way and shot.
        calibration: how right the probabilities of the last validation and test were.
        reliability: of each bin of confidence of the last test the queries, the right ones and the
            summed confidence, (3, BINS); None where there are no probabilities.
    """

    task: Task
    tables: nn.ModuleDict
    columns: dict[str, dict[str, Tensor]]
    estimates: dict[str, dict[str, Estimate]]
    answers: Tensor | None = None
    reliability: Tensor | None = None
    _named = False  # whether the classes of the test under way have names
    softmax_temperature: float | None
    last_validation: dict[str, Any] | None
    calibration: dict[str, dict[str, Any]]

    @abstractmethod
    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt to and predict each of B stacked episodes; yields outcomes of successive chunks."""

    def evaluate(self, episodes: Episode) -> Outcome:
        """Adapt to and predict each stacked episode, with no inference mode or outer graph."""
        with torch.inference_mode(False), torch.no_grad():
            # Tensors made in inference mode can take no part in the inner loop's autograd; clones
            # can.
            return joined_outcomes(
                list(self.run(map_tensors(torch.clone, episodes), training=False))
            )

    def outputs_by_step(self, episode: Episode, outputs: Tensor) -> dict[str, Tensor]:
        """Outputs for one episode's queries by what they are, as a picture tells them apart.

        Args:
            episode: one episode without the axis B, on the learner's device.
            outputs: those that the learner is judged by, (n, ...); they come last.
        """
        return {"predicted": outputs}

    def validation_step(self, batch: MetaBatch, batch_idx: int) -> None:
        """Evaluate a meta-batch of validation episodes."""
        self._evaluation_step("val", batch)

    def test_step(self, batch: MetaBatch, batch_idx: int) -> None:
        """Evaluate a meta-batch of test episodes."""
        self._evaluation_step("test", batch)

    def predict_step(self, batch: MetaBatch, batch_idx: int) -> list[Outcome]:
        """The outcomes of a meta-batch of test episodes: one, or one each where sizes differ."""
        return [self.evaluate(part) for part in MetaBatch.of(batch).parts]

    def _evaluation_step(self, stage: str, batch: MetaBatch) -> None:
        table = self._table(stage)
        for part, numbers in MetaBatch.of(batch).numbered():
            outcome = self.evaluate(part)
            if numbers is None:
                numbers = self.next_numbers(table.rows_so_far, len(outcome.loss))
            values = {"loss": outcome.loss, **outcome.metrics}
            marks = self.task.marks(part.query, outcome.outputs)
            numbers = numbers.to(self.device)
            table.update(numbers, values | marks)
            if self.task.has_probabilities:
                labels = part.query.targets.flatten(0, 1)
                self._confidence(stage).update(
                    outcome.outputs.flatten(0, 1), labels, self.softmax_temperature
                )
            if stage == "test" and self._named:
                self._note_answers(numbers, outcome.outputs, part.query.targets)

    def _note_answers(self, numbers: Tensor, outputs: Tensor, targets: Tensor) -> None:
        if (answers := self.task.answers(outputs, targets)) is not None:
            table = self.tables["answers"]
            assert isinstance(table, AnswerTable)
            table.update(numbers, *answers)

    def next_numbers(self, seen: int, more: int) -> Tensor:
        """Numbers for `more` episodes that a loader of one's own gave none, after `seen` others."""
        rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return torch.tensor(share(0, world_size * (seen + more), rank, world_size)[seen:])

    def _table(self, stage: str) -> EpisodeTable:
        table = self.tables[stage]
        assert isinstance(table, EpisodeTable)
        return table

    def _confidence(self, stage: str) -> Confidence:
        confidence = self.tables[f"{stage}_confidence"]
        assert isinstance(confidence, Confidence)
        return confidence

    def on_validation_epoch_start(self) -> None:
        """Begin an empty table."""
        self._begin("val")

    def on_test_epoch_start(self) -> None:
        """Begin empty tables."""
        self._begin("test")
        answers = self.tables["answers"]
        assert isinstance(answers, AnswerTable)
        answers.reset()
        names = getattr(getattr(self.trainer, "datamodule", None), "class_names", None)
        self._named = names is not None and names("test", [0]) is not None

    def _begin(self, stage: str) -> None:
        self._table(stage).reset()
        self._confidence(stage).reset()

    def on_validation_epoch_end(self) -> None:
        """Log the validation episodes' means."""
        self._log_estimates("val")
        if self.task.has_probabilities:
            self.calibration["val"], best, _ = self._confidence("val").compute()
            if not self.trainer.sanity_checking:
                self.softmax_temperature, self.last_validation = best, self._validated()
        scheduler = self.lr_schedulers() if self.trainer.state.fn == "fit" else None
        if isinstance(scheduler, ReduceLROnPlateau) and not self.trainer.sanity_checking:
            scheduler.step(self.estimates["val"][self.task.monitor[0]].mean)

    def on_test_epoch_end(self) -> None:
        """Log the test episodes' means with their confidence intervals."""
        self._log_estimates("test")
        table = self.tables["answers"]
        assert isinstance(table, AnswerTable)
        self.answers = table.compute() if table.update_called else None
        if self.task.has_probabilities:
            self.calibration["test"], _, self.reliability = self._confidence("test").compute()

    def _validated(self) -> dict[str, Any]:
        """The accuracy of the validation episodes, and in which range 95 % of them lie."""
        sizes = getattr(getattr(self.trainer, "datamodule", None), "sizes", None)
        way, shot, _ = sizes("val") if sizes is not None else (None, None, None)
        accuracies = self.columns["val"]["accuracy"].double()
        low, high = accuracies.quantile(torch.tensor([0.025, 0.975]).double()).tolist()
        return {
            "way": way if isinstance(way, int) else None,
            "shot": shot if isinstance(shot, int) else None,
            "episodes": len(accuracies),
            "accuracy": accuracies.mean().item(),
            "range95": [low, high],
        }

    def _log_estimates(self, stage: str) -> None:
        self.columns[stage] = self._table(stage).columns()
        values = {name: column for name, column in self.columns[stage].items() if name != "episode"}
        self.estimates[stage] = self.task.estimates(values)
        main = self.task.monitor[0]
        for name, (mean, ci95) in self.estimates[stage].items():
            # equal on every rank already; sync_dist keeps Lightning from warning that it might not
            # be, and batch_size from asking the batch before which a signal ended the evaluation
            self.log(f"{stage}/{name}", mean, prog_bar=name == main, sync_dist=True, batch_size=1)
            self.log(f"{stage}/{name}_ci95", ci95, sync_dist=True, batch_size=1)
