"""Pictures of an episode with predictions: for loggers, and as a file after a test."""

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fewshot.callbacks.figures import pixels, save
from fewshot.callbacks.first_episode import FirstEpisode
from fewshot.callbacks.loggers import log_image, take_images
from fewshot.callbacks.run_folder import run_folder
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import Episode, MetaBatch, map_tensors
from fewshot.learners.base import MetaLearner
from fewshot.tasks.base import EpisodeView, Normal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EpisodePicture(FirstEpisode):
    """Draw the first episode of every validation and test with its predictions.

    What is drawn is the task kind's (`Task.picture`): images with the classes they were given, a
    function of one variable with its predictions, masks; other inputs have no picture. Pictures go
    to the loggers that take them, the test's to `episode.png` in the run's folder too.

    Args:
        queries: queries drawn of each class; of masks, rows drawn of support and of queries.
        classes: classes drawn at most.
    """

    def __init__(self, queries: int = 5, classes: int = 10) -> None:
        super().__init__()
        self.queries, self.classes = queries, classes

    def on_validation_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: MetaBatch,
        batch_idx: int,
        *args: Any,
    ) -> None:
        """Keep the first episode."""
        self.keep(batch, batch_idx)

    @rank_zero_only
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send the picture to the loggers."""
        if trainer.sanity_checking or not take_images(trainer):
            return
        image = pixels(lambda: self._figure(trainer, pl_module), dpi=100)
        if image is not None:
            log_image(image, trainer, "val/episode")

    @rank_zero_only
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save the picture, and send it to the loggers."""
        image = pixels(lambda: self._figure(trainer, pl_module), dpi=100)
        if image is not None:
            save(image, run_folder(trainer) / "episode.png")
            log_image(image, trainer, "test/episode")

    def _figure(self, trainer: L.Trainer, learner: L.LightningModule) -> "Figure | None":
        if self.first is None or not isinstance(learner, MetaLearner):
            return None
        benchmark = getattr(trainer, "datamodule", None)
        stage: Stage = "test" if trainer.testing else "val"
        view = self.view(learner, self.first, benchmark)
        return learner.task.picture(replace(view, names=self.class_names(trainer, stage)))

    def view(self, learner: MetaLearner, episodes: Episode, benchmark: Any) -> EpisodeView:
        """A meta-batch of one episode, and what the learner and the benchmark know of it."""
        one: Episode = map_tensors(lambda tensor: tensor[0], episodes)
        shown = map_tensors(Tensor.cpu, one)

        @cache
        def outputs() -> Tensor:
            return learner.evaluate(episodes).outputs[0].float().cpu()

        def references() -> dict[str, Normal]:
            if not isinstance(benchmark, EpisodicDataModule):
                return {}
            return benchmark.references(shown.support, shown.query.inputs)

        def by_step() -> dict[str, Tensor]:
            return learner.outputs_by_step(one, outputs())

        return EpisodeView(shown, outputs, by_step, references, self.queries, self.classes)
