"""Whether a learner has memorised its training tasks instead of learning to learn."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import lightning as L
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fewshot.arguments import NonNegative
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.episodes.types import Episode, MetaBatch, as_numbers
from fewshot.learners.base import MetaLearner
from fewshot.learners.optimization.evaluation import InnerLoopEvaluation
from fewshot.tasks import Classification
from fewshot.tasks.regression import Regression

PASSES = 2.5
"""What a probed episode costs: two evaluations, and one before adaptation."""
MOST, LEAST = 64, 4
"""Episodes of a probe."""
NEW = 2**40
"""The number of the first probed episode: none that training comes to."""


class Figures(NamedTuple):
    """What new episodes of the training tasks show, shares in [0, 1], or mean squared errors.

    Args:
        metric: accuracy or mse.
        training: of the adapted learner.
        validation: the same on validation's tasks.
        unadapted: before adaptation, without a support; None: the learner has no such state.
        chance: what `unadapted` is where nothing is known: 1 / way, or the variance of the targets.
        follows: with the support's labels permuted, the share of queries that are given the
            permuted label; None for regression.
        episodes: how many.
    """

    metric: str
    training: float
    validation: float
    unadapted: float | None
    chance: float
    follows: float | None
    episodes: int

    @property
    def gap(self) -> float:
        """How much better training's tasks are answered than validation's."""
        gap = self.training - self.validation
        return gap if self.metric == "accuracy" else -gap

    @property
    def memorised(self) -> bool:
        """Whether queries are answered that cannot be answered without a support.

        Of a function, that the answers without one are far better than a constant, and that a
        support makes them little better: an input may tell much of its task to who adapts too.
        """
        if self.metric != "accuracy":
            return self.unadapted is not None and (
                self.unadapted < self.chance / 2 and self.training > self.unadapted / 2
            )
        slack = max(0.1, 3 * math.sqrt(self.chance * (1 - self.chance) / self.episodes))
        told = self.unadapted is not None and self.unadapted > self.chance + slack
        return told or (self.follows is not None and self.follows < self.training / 2 - slack)

    def sentence(self) -> str:
        """What the figures say."""
        without = "" if self.unadapted is None else f"{self._written(self.unadapted)} without a"
        if self.memorised:
            how = (
                f"answers {without} support (chance {self._written(self.chance)})"
                if without and self.metric == "accuracy"
                else f"has an error of {without} support (a constant: {self._written(self.chance)})"
                if without
                else f"follows permuted labels in {self._written(self.follows or 0.0)} of queries"
            )
            return f"memorises its training tasks: {how}; see docs/challenges.md"
        if self.metric == "accuracy" and self.gap > 0.2:
            return (
                f"knows its training classes better: {self._written(self.training)} on new episodes"
                f" of them, {self._written(self.validation)} on validation; see docs/challenges.md"
            )
        return (
            f"learns from supports: {self._written(self.training)} on training tasks,"
            f" {self._written(self.validation)} on validation"
            + (f", {without} support" if without else "")
        )

    def _written(self, value: float) -> str:
        return f"{100 * value:.0f} %" if self.metric == "accuracy" else f"{value:.2g}"


class Memorisation(Callback):
    """Three figures beside each validation, which tell memorised tasks from learning to learn.

    New episodes of the training tasks, of validation's size: how much better they are answered than
    validation's (`memorisation/gap`); before adaptation, without a support, against chance
    (`memorisation/unadapted`, optimization-based learners with a head of their own); and how often
    queries follow the support's labels when those are permuted (`memorisation/follows`,
    classification). They are in the progress bar, the loggers, results.json, and in one sentence at
    the end. Benchmarks of classes and of functions have them; a run that is too short for its share
    has none.

    Args:
        share: of the work of an epoch, what the figures may cost; 0 turns them off.
    """

    def __init__(self, share: NonNegative = 0.05) -> None:
        self.share = share
        self.figures: Figures | None = None
        self._validations = 0

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the figures, after the learner has made its estimates."""
        data = getattr(trainer, "datamodule", None)
        if trainer.sanity_checking or trainer.state.fn != "fit" or not self.share:
            return
        if not isinstance(pl_module, MetaLearner) or not isinstance(data, EpisodicDataModule):
            return
        if pl_module.trains_on != "episodes" or not self._applies(pl_module):
            return
        number = self.episodes_to_probe(trainer, data, pl_module)
        self._validations += 1
        if not number or self._validations % math.ceil(LEAST / number):
            return
        self.figures = self._probed(pl_module, data, max(int(number), LEAST))
        self._log(trainer)

    @staticmethod
    def _applies(learner: MetaLearner) -> bool:
        return type(learner.task) in (Classification, Regression)

    def episodes_to_probe(
        self, trainer: L.Trainer, data: EpisodicDataModule, learner: MetaLearner
    ) -> float:
        """How many episodes a validation the share allows, by the work between two validations.

        In evaluations, not by the clock: what is reported must not depend on the machine.
        """
        inner, judged = (getattr(learner, n, 1) for n in ("inner_steps", "eval_inner_steps"))
        cheaper = min(1.0, (inner + 1) / (judged + 1))  # a training episode, of an evaluation
        steps = min(trainer.num_training_batches, trainer.val_check_batch or math.inf)
        trained = min(data.episodes["train"], steps * data.meta_batch_size)
        batches = sum(trainer.num_val_batches)
        validated = min(data.episodes["val"], batches * data.eval_batch_size * trainer.world_size)
        return min(MOST, self.share * (validated + cheaper * trained) / PASSES)

    def _probed(
        self, learner: MetaLearner, data: EpisodicDataModule, number: int
    ) -> Figures | None:
        metric = learner.task.monitor[0]
        validation = learner.estimates["val"].get(metric)
        tasks = data.training_tasks_alike()
        if validation is None or tasks is None:
            return None
        rows = [_outcomes(learner, episode) for episode in _episodes(learner, data, tasks, number)]
        columns = {name: torch.cat([row[name] for row in rows]) for name in rows[0]}
        means = {name: column.double().mean().item() for name, column in columns.items()}
        return Figures(
            metric,
            means["training"],
            validation.mean,
            means.get("unadapted"),
            means["chance"],
            means.get("follows"),
            number,
        )

    def _log(self, trainer: L.Trainer) -> None:
        if self.figures is None:
            return
        values = {"gap": self.figures.gap, "unadapted": self.figures.unadapted}
        values["follows"] = self.figures.follows
        named = {f"memorisation/{n}": v for n, v in values.items() if v is not None}
        for logger in trainer.loggers:
            logger.log_metrics(named, step=trainer.global_step)

    @rank_zero_only
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say in one sentence what the last figures tell."""
        if self.figures is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            from rich.console import Console

            sentence = f"{type(pl_module).__name__} {self.figures.sentence()}"
            Console().print(sentence, soft_wrap=True, highlight=False)


def figures_of(trainer: L.Trainer) -> dict[str, Any]:
    """The last figures as plain values under one name; empty where there are none."""
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Memorisation) and callback.figures is not None:
            found = callback.figures
            told = {"gap": found.gap, "memorised": found.memorised, "says": found.sentence()}
            return {"memorisation": {**found._asdict(), **told}}
    return {}


def _episodes(
    learner: MetaLearner, data: EpisodicDataModule, tasks: Any, number: int
) -> Iterator[Episode]:
    """So many new episodes, on the learner's device, as validation's batches come."""
    for start in range(0, number, data.eval_batch_size):
        numbers = range(NEW + start, NEW + min(start + data.eval_batch_size, number))
        rngs = [np.random.default_rng([data.seed, 0, one]) for one in numbers]
        batch: Any = MetaBatch(tasks.draw_many(rngs), as_numbers(numbers))
        batch = data.on_before_batch_transfer(batch, 0)
        batch = data.transfer_batch_to_device(batch, learner.device, 0)
        yield from data.on_after_batch_transfer(batch, 0).parts


def _outcomes(learner: MetaLearner, episodes: Episode) -> dict[str, Tensor]:
    """The figures of each of stacked episodes, by name."""
    metric, targets = learner.task.monitor[0], episodes.query.targets
    found = {"training": learner.evaluate(episodes).metrics[metric]}
    if learner.fixed_way and isinstance(learner, InnerLoopEvaluation):
        found["unadapted"] = learner.evaluate_unadapted(episodes).metrics[metric]
    if isinstance(learner.task, Classification):
        way = int(episodes.support.targets.max()) + 1
        permuted = Episode(*(part._replace(targets=(part.targets + 1) % way) for part in episodes))
        found["follows"] = learner.evaluate(permuted).metrics[metric]
        found["chance"] = torch.full_like(found["training"], 1 / way)
    else:
        found["chance"] = targets.flatten(1).var(1, correction=0)
    return {name: values.cpu() for name, values in found.items()}
