"""The adaptation curve: loss and metric at every inner step, for loggers and as a file."""

from collections.abc import Mapping
from typing import TypeAlias

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fewshot.callbacks.figures import Pixels, pixels, save
from fewshot.callbacks.loggers import log_image, take_images
from fewshot.callbacks.run_folder import run_folder
from fewshot.learners.base import MetaLearner
from fewshot.tasks.drawing.style import INK, LINE, bare, headed
from fewshot.tasks.estimates import Estimate, scale_of

Curves: TypeAlias = dict[str, dict[int, Estimate]]
"""Estimates by the name of the quantity and the number of inner steps."""

MARKED = 12  # steps up to which each has a marker


class AdaptationCurve(Callback):
    """Draw loss and main metric against the inner step, with 95 % confidence bands.

    The figure goes to the loggers that take images, after every validation (`val/adaptation`) and
    test (`test/adaptation`), the test's to `adaptation.png` in the run's folder too. Learners that
    do not report ``loss_step0``, ... have none: the optimization-based do where `eval_curve` asks.
    """

    # After the learner's own `on_..._epoch_end`, which makes the estimates.
    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send the figure to the loggers."""
        if not trainer.sanity_checking and take_images(trainer):
            self._figure(trainer, pl_module, "val")

    @rank_zero_only
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send the figure to the loggers and save it."""
        if (image := self._figure(trainer, pl_module, "test")) is not None:
            save(image, run_folder(trainer) / "adaptation.png")

    def _figure(self, trainer: L.Trainer, learner: L.LightningModule, stage: str) -> Pixels | None:
        if not isinstance(learner, MetaLearner):
            return None
        curves = adaptation_curves(learner.estimates[stage], learner.task.monitor[0])
        if not curves:
            return None
        units = {name: learner.task.unit(name) for name in curves}
        image = pixels(lambda: draw_curves(curves, units), dpi=150)
        if image is not None:
            log_image(image, trainer, f"{stage}/adaptation")
        return image


def adaptation_curves(estimates: dict[str, Estimate], metric: str) -> Curves:
    """The estimates of `metric` and of the loss by inner steps.

    Empty where there are none.

    A loss that is the metric itself (the mean squared error) is left out.
    """
    curves: Curves = {}
    for name in (metric, "loss"):
        prefix = f"{name}_step"
        curve = {
            int(key.removeprefix(prefix)): estimate
            for key, estimate in estimates.items()
            if key.startswith(prefix)
        }
        if curve and _means(curve) not in [_means(other) for other in curves.values()]:
            curves[name] = dict(sorted(curve.items()))
    return curves


def _means(curve: dict[int, Estimate]) -> dict[int, float]:
    return {step: estimate.mean for step, estimate in curve.items()}


def draw_curves(curves: Curves, units: Mapping[str, str]) -> Figure:
    """A panel for each curve, shares in per cent; the values at both ends are written out.

    Args:
        curves: of one quantity or two.
        units: of the quantities, as `Task.unit` gives them.
    """
    width, height, panel, gap = 0.4 + 4.2 * len(curves), 3.4, 3.5, 0.7  # in inches
    figure = Figure(figsize=(width, height))
    # Written out: a layout that matplotlib finds for itself takes as long as the drawing.
    figure.subplots_adjust(
        gap / width, 0.55 / height, 1 - 0.2 / width, 1 - 0.35 / height, wspace=gap / panel
    )
    for column, (name, curve) in enumerate(curves.items(), start=1):
        _draw(figure.add_subplot(1, len(curves), column), name, curve, units[name])
    return figure


def _draw(axis: Axes, name: str, curve: dict[int, Estimate], unit: str) -> None:
    percent, scale = unit == "%", scale_of(unit)
    means = [scale * mean for mean, _ in curve.values()]
    low = [scale * (mean - ci95) for mean, ci95 in curve.values()]
    high = [scale * (mean + ci95) for mean, ci95 in curve.values()]
    steps = list(curve)
    axis.fill_between(steps, low, high, color=LINE, alpha=0.18, linewidth=0)
    axis.plot(
        steps,
        means,
        color=LINE,
        linewidth=1.8,
        marker="o" if len(steps) <= MARKED else "",
        markersize=4.5,
    )
    # On the outer side of the bend, where no text lies on the line.
    rises = means[-1] > means[0]
    for end, shift, side in (
        (0, (9, -3 if rises else 3), "left"),
        (-1, (0, 10 if rises else -17), "right"),
    ):
        text = f"{means[end]:.1f} %" if percent else f"{means[end]:.3g} {unit}".rstrip()
        axis.annotate(
            text,
            (steps[end], means[end]),
            shift,
            textcoords="offset points",
            ha=side,
            fontsize=9,
            color=INK,
        )
    of_unit = " in per cent" if percent else f" in {unit}" if unit else ""
    headed(axis, f"{name}{of_unit}, mean ± 95 % CI")
    axis.set_xlabel("inner step", color=INK)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axis.margins(x=0.06, y=0.16)
    bare(axis, "y", 9)
