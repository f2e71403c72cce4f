"""Figures of a whole test: how its episodes spread, and how far probabilities can be trusted."""

from functools import partial

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from fewshot.callbacks.figures import pixels, save
from fewshot.callbacks.loggers import log_image
from fewshot.callbacks.run_folder import run_folder
from fewshot.learners.base import MetaLearner
from fewshot.tasks.drawing.distributions import draw_histogram, draw_reliability


class TestFigures(Callback):
    """Draw a test's histogram and, of what has probabilities, its reliability diagram.

    The histogram is of the task's main metric over the episodes: a mean of 80 % can be 80 % in
    all of them, or half of them at 60. Of a metric that episodes by themselves do not have there
    is none. Both go to the loggers that take images (`test/histogram`, `test/reliability`) and to
    `histogram.png` and `reliability.png` in the run's folder.
    """

    __test__ = False  # nothing that pytest should collect

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
