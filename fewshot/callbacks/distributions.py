"""How episodes spread, how a test's mean settles, and how far probabilities can be trusted."""

import math
from functools import partial

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from fewshot.callbacks.board import BoardLogger, tag_of
from fewshot.callbacks.figures import pixels, save
from fewshot.callbacks.loggers import log_image
from fewshot.callbacks.run_folder import run_folder
from fewshot.episodes.streams import Stage
from fewshot.learners.base import MetaLearner
from fewshot.tasks.drawing.distributions import draw_histogram, draw_reliability

BINS = 30
POINTS = 20
"""Of the curve by which a test's mean settles."""


class TestFigures(Callback):
    """Draw a test's histogram and, of what has probabilities, its reliability diagram.

    The histogram is of the task's main metric over the episodes: a mean of 80 % can be 80 % in
    all of them, or half of them at 60. Of a metric that episodes by themselves do not have there
    is none. Both go to the loggers that take images (`test/histogram`, `test/reliability`) and to
    `histogram.png` and `reliability.png` in the run's folder.

    In TensorBoard the episodes of every validation and of the test are a histogram too
    (`episodes/val_accuracy`), and the test has a chart: each mean over the first episodes, whose
    last value is the result (`accuracy/test`). HPARAMS has it as a column.
    """

    __test__ = False  # nothing that pytest should collect

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show how the validation's episodes spread."""
        if isinstance(pl_module, MetaLearner) and not trainer.sanity_checking:
            log_spread(trainer, pl_module, "val")

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send the figures to the loggers and save them."""
        if not isinstance(pl_module, MetaLearner):
            return
        for name, draw in (("histogram", histogram), ("reliability", reliability)):
            image = pixels(partial(draw, pl_module), dpi=100)
            if image is not None:
                save(image, run_folder(trainer) / f"{name}.png")
                log_image(image, trainer, f"test/{name}")
        log_spread(trainer, pl_module, "test")
        for logger in trainer.loggers:
            if isinstance(logger, BoardLogger):
                for name, curve in settling(pl_module).items():
                    for episodes, mean in curve.items():
                        logger.experiment.add_scalar(tag_of(name, "test"), mean, episodes)


def log_spread(trainer: L.Trainer, learner: MetaLearner, stage: Stage) -> None:
    """The main metric's values of the episodes, for TensorBoard's HISTOGRAMS."""
    metric = learner.task.monitor[0]
    values = learner.columns[stage].get(metric)
    finite = None if values is None else values[values.isfinite()]
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and finite is not None and len(finite):
            tag = f"episodes/{stage}_{metric}"
            logger.experiment.add_histogram(tag, finite.cpu(), trainer.global_step, bins=BINS)


def settling(learner: MetaLearner) -> dict[str, dict[int, float]]:
    """Each estimate of the last test over its first episodes, by their number; the last is whole.

    Without those of single inner steps.
    """
    columns = {n: of for n, of in learner.columns["test"].items() if n != "episode"}
    episodes = len(learner.columns["test"]["episode"])
    names = [name for name in learner.estimates["test"] if "_step" not in name]
    curves: dict[str, dict[int, float]] = {name: {} for name in names}
    for number in np.unique(np.linspace(episodes / POINTS, episodes, POINTS).round()):
        if not (first := int(number)):
            continue
        found = learner.task.estimates({name: of[:first] for name, of in columns.items()})
        for name in names:
            if name in found and math.isfinite(found[name].mean):
                curves[name][first] = found[name].mean
    return curves


def histogram(learner: MetaLearner) -> Figure | None:
    """The main metric over the episodes of the last test; None where they have none."""
    metric = learner.task.monitor[0]
    column = learner.columns["test"].get(metric)
    if column is None:
        return None
    estimate, unit = learner.estimates["test"][metric], learner.task.unit(metric)
    return draw_histogram(column.double().cpu().numpy(), metric, unit, estimate)


def reliability(learner: MetaLearner) -> Figure | None:
    """Right answers by confidence in the last test; None where there are no probabilities."""
    if learner.reliability is None:
        return None
    found = learner.calibration["test"]
    sums = learner.reliability.double().numpy()
    return draw_reliability(sums, found["ece"], found["temperature"])
