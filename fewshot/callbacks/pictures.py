"""Pictures of an episode with predictions: in TensorBoard at validation, as a file after a test."""

from typing import Any, TypeAlias

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from fewshot.callbacks.figures import log, pixels, save, tensorboard
from fewshot.callbacks.masks import draw_masks
from fewshot.callbacks.results import run_folder
from fewshot.datamodules.gaussian_process import GaussianProcessDataModule
from fewshot.episodes.types import Episode, MetaBatch, map_tensors, singles
from fewshot.learners.base import MetaLearner
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.tasks import Classification, GaussianRegression, Regression, Segmentation
from fewshot.tasks.masks import at_size

RIGHT, WRONG = "#1a7f37", "#cf222e"
TRUE, PREDICTED, POINT = "#d0d7de", "#0969da", "#1f2328"
Band: TypeAlias = tuple[Tensor, Tensor]
"""Means and standard deviations (Q, 1)."""
SIDE, ROW = 0.9, 1.15  # of an image and of a row of images, in inches


class EpisodePicture(Callback):
    """Draw the first episode of every validation and test with its predictions.

    Images: the support above, queries below in the column of their class, each marked with the
    class it was given; green is right, red is wrong. Functions of one variable: the support points,
    the true and the predicted values, for optimization-based learners before and after adaptation;
    a band of 2 standard deviations where the learner predicts them, and that of the exact posterior
    where the benchmark has one. Masks: the support with its masks, then queries with the predicted
    and the true one. Other inputs have no picture. Validation pictures go to TensorBoard, the
    test's to `episode.png` in the run's folder.

    Args:
        queries: queries drawn of each class; of masks, rows drawn of support and of queries.
        classes: classes drawn at most.
    """

    def __init__(self, queries: int = 5, classes: int = 10) -> None:
        self.queries, self.classes = queries, classes
        self.first: Episode | None = None

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: MetaBatch,
        batch_idx: int,
        *args: Any,
    ) -> None:
        """Keep the first episode."""
        self._keep(batch, batch_idx)

    def on_test_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: MetaBatch,
        batch_idx: int,
        *args: Any,
    ) -> None:
        """Keep the first episode."""
        self._keep(batch, batch_idx)

    def _keep(self, batch: MetaBatch, batch_idx: int) -> None:
        if batch_idx == 0:
            self.first = next(singles(batch))

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send the picture to TensorBoard."""
        if trainer.sanity_checking or tensorboard(trainer) is None:
            return
        if (figure := self._figure(trainer, pl_module)) is not None:
            log(pixels(figure, dpi=100), trainer, "val/episode")

    @rank_zero_only
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the picture."""
        if (figure := self._figure(trainer, pl_module)) is not None:
            save(pixels(figure, dpi=100), run_folder(trainer) / "episode.png")

    def _figure(self, trainer: L.Trainer, learner: L.LightningModule) -> Figure | None:
        if self.first is None or not isinstance(learner, MetaLearner):
            return None
        inputs = self.first.query.inputs
        if not isinstance(inputs, Tensor):
            return None
        outputs = learner.evaluate(self.first).outputs[0].float().cpu()
        episode = map_tensors(lambda tensor: tensor[0], self.first)
        drawn = map_tensors(torch.Tensor.cpu, episode)
        if isinstance(learner.task, Classification) and inputs.dim() == 5:
            return draw_images(drawn, outputs.argmax(-1), self.queries, self.classes)
        if isinstance(learner.task, Segmentation):
            predicted = at_size(outputs, drawn.query.targets).argmax(1)
            return draw_masks(drawn, predicted, self.queries)
        if isinstance(learner.task, Regression) and inputs.shape[2:] == (1,):
            predictions = predictions_by_step(learner, episode, outputs)
            return draw_function(drawn, predictions, bands(trainer, learner, drawn, outputs))
        return None


def bands(
    trainer: L.Trainer, learner: MetaLearner, episode: Episode, outputs: Tensor
) -> dict[str, Band]:
    """What is known of the query values' spread: by the learner, and by the exact posterior.

    The exact posterior is the benchmark's.

    Args:
        trainer: knows the benchmark.
        learner: the learner.
        episode: the episode, on the CPU.
        outputs: what the learner gave for its queries.
    """
    found: dict[str, Band] = {}
    benchmark = getattr(trainer, "datamodule", None)
    if isinstance(benchmark, GaussianProcessDataModule):
        assert isinstance(episode.query.inputs, Tensor)
        found["exact posterior"] = benchmark.posterior(episode.support, episode.query.inputs)
    if isinstance(learner.task, GaussianRegression):
        mean, deviation = outputs.chunk(2, -1)
        found["predicted"] = mean, deviation
    return found


def predictions_by_step(
    learner: MetaLearner, episode: Episode, outputs: Tensor
) -> dict[str, Tensor]:
    """Predictions before adaptation, after the first inner step and after the last.

    Only for learners that take inner steps.

    Args:
        learner: the learner.
        episode: the episode, on the learner's device.
        outputs: what the learner gave for its queries, (Q, 1), or (Q, 2) with the standard
            deviations.
    """
    outputs = outputs[:, :1]
    if not isinstance(learner, OptimizationLearner):
        return {"predicted": outputs}
    last = learner.eval_inner_steps
    found: dict[str, Tensor] = {}
    with torch.no_grad():
        for step in range(min(last, 2)):
            adapted = learner.adapt_for(episode.support, step)
            found[_after(step)] = learner.predict(adapted, episode.query.inputs).float().cpu()
    return found | {_after(last): outputs}


def _after(steps: int) -> str:
    return f"after {steps} step{'s' if steps > 1 else ''}" if steps else "before adaptation"


def draw_images(episode: Episode, predicted: Tensor, queries: int = 5, classes: int = 10) -> Figure:
    """A grid with a column per class: its first support image, then the queries given its label.

    Args:
        episode: images (S, C, H, W) and (N*Q, C, H, W) in [0, 1], labels in 0..N-1.
        predicted: labels (N*Q,) given to the queries.
        queries: rows of queries at most.
        classes: columns at most.
    """
    (support, labels), images, targets = (
        episode.support,
        episode.query.inputs,
        episode.query.targets,
    )
    assert isinstance(support, Tensor)
    assert isinstance(images, Tensor)
    way = min(int(labels.max()) + 1, classes)
    rows = min(queries, int((targets == 0).sum()))
    # One pair of axes for all images, in inches: axes for each take a second to lay out.
    width, height = way + 0.3, ROW * (rows + 1) + 0.2
    figure = Figure(figsize=(width, height))
    axis = figure.add_axes((0, 0, 1, 1))
    for label in range(way):
        axis.text(label + 0.8, 0.12, f"class {label + 1}", ha="center", va="center", fontsize=9)
        _show(axis, support[labels == label][0], 0, label)
        where = torch.nonzero(targets == label).flatten()[:rows]
        for row, index in enumerate(where.tolist(), start=1):
            given = int(predicted[index])
            colour = RIGHT if given == label else WRONG
            _show(axis, images[index], row, label, colour)
            mark = f"{'✓' if given == label else '✗'} {given + 1}"
            axis.text(
                label + 0.8,
                ROW * (row + 1) + 0.09,
                mark,
                ha="center",
                va="center",
                fontsize=9,
                color=colour,
            )
    for row in range(rows + 1):
        name = "query" if row else "support"
        axis.text(
            0.15, ROW * row + 0.68, name, ha="center", va="center", fontsize=9, rotation="vertical"
        )
    axis.set(xlim=(0, width), ylim=(height, 0))
    axis.axis("off")
    return figure


def _show(axis: Axes, image: Tensor, row: int, column: int, colour: str | None = None) -> None:
    """An image (C, H, W) at its place in the grid, framed in `colour`."""
    left, top = column + 0.35, ROW * row + 0.24
    extent = (left, left + SIDE, top + SIDE, top)
    image = image[-3:] if len(image) > 3 else image  # of a clip, the latest frame
    colours = image.permute(1, 2, 0).clamp(0, 1).expand(-1, -1, 3).numpy()
    axis.imshow(colours, extent=extent, aspect="auto")
    if colour:
        axis.add_patch(
            Rectangle((left, top), SIDE, SIDE, fill=False, edgecolor=colour, linewidth=2)
        )


def draw_function(
    episode: Episode, predictions: dict[str, Tensor], spread: dict[str, Band] | None = None
) -> Figure:
    """The support points of a function, its true values at the queries and the predicted ones.

    Args:
        episode: inputs (K, 1) and (Q, 1), targets of the same shapes.
        predictions: values (Q, 1) by what they are, the last one the strongest.
        spread: means and standard deviations (Q, 1) by whose they are, drawn as bands of 2
            deviations: `predicted` is filled, others are outlined.
    """
    (x_support, y_support), x_query, y_query = (
        episode.support,
        episode.query.inputs,
        episode.query.targets,
    )
    assert isinstance(x_support, Tensor)
    assert isinstance(x_query, Tensor)
    order = x_query.flatten().argsort()
    figure = Figure(figsize=(7, 4))
    axis = figure.add_axes((0.1, 0.12, 0.63, 0.85))
    x = x_query.flatten()[order].tolist()
    axis.plot(
        x,
        y_query.flatten()[order].tolist(),
        color=TRUE,
        linewidth=5,
        solid_capstyle="round",
        label="true",
    )
    for name, (mean, deviation) in (spread or {}).items():
        low, high = ((mean + side * deviation).flatten()[order].tolist() for side in (-2, 2))
        if name == "predicted":
            axis.fill_between(
                x, low, high, color=PREDICTED, alpha=0.15, linewidth=0, label="± 2 deviations"
            )
        else:
            axis.plot(x, low, ":", color=POINT, linewidth=1, label=f"{name} ± 2")
            axis.plot(x, high, ":", color=POINT, linewidth=1)
    for i, (name, values) in enumerate(predictions.items(), start=1):
        strength = i / len(predictions)
        axis.plot(
            x,
            values.flatten()[order].tolist(),
            color=PREDICTED,
            alpha=strength,
            linewidth=1 + strength,
            linestyle="-" if i == len(predictions) else "--",
            label=name,
        )
    axis.plot(
        x_support.flatten().tolist(),
        y_support.flatten().tolist(),
        "^",
        color=POINT,
        markersize=7,
        label="support",
    )
    axis.set(xlabel="x", ylabel="y")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="upper right", frameon=False, fontsize=9)
    return figure
