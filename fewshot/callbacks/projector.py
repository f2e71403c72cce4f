"""The features of a test episode for TensorBoard's PROJECTOR, with class names and pictures."""

import shutil
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from fewshot.callbacks.first_episode import FirstEpisode
from fewshot.episodes.types import Episode, map_tensors
from fewshot.files.tables import printable
from fewshot.learners.embedding import EmbeddingLearner, joined
from fewshot.tasks import Classification
from fewshot.tasks.by_class import NONE

TAG = "test_episode"
"""What the points are called, and their folder."""
HEADER = ["class", "role", "predicted"]
SIDE = 48  # of a picture, in pixels: TensorBoard keeps all of them in one image


class Projector(FirstEpisode):
    """Send the features of the first test episode to TensorBoard's PROJECTOR.

    Support and queries are points that have a class, a role, the class they were taken for and,
    of images, a picture. Learners that embed all episodes by one network have such features
    (`EmbeddingLearner`); those that adapt the network have none, nor has a kind of task without
    classes.
    """

    # Before the learner's own `on_test_epoch_end`, which forgets features.
    @rank_zero_only
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the points."""
        loggers = [one for one in trainer.loggers if isinstance(one, TensorBoardLogger)]
        if not loggers or self.first is None or not has_points(pl_module):
            return
        assert isinstance(pl_module, EmbeddingLearner)
        names = self.class_names(trainer, "test")
        points, rows, pictures = points_of(pl_module, self.first, names)
        for logger in loggers:
            place = Path(logger.log_dir, f"{trainer.global_step:05}", TAG)
            shutil.rmtree(place, ignore_errors=True)  # an earlier test's of the same weights
            logger.experiment.add_embedding(
                points, rows, pictures, trainer.global_step, TAG, metadata_header=HEADER
            )


def has_points(learner: L.LightningModule) -> bool:
    """Whether a learner has features of an episode that classes tell apart."""
    return isinstance(learner, EmbeddingLearner) and isinstance(learner.task, Classification)


def points_of(
    learner: EmbeddingLearner, episodes: Episode, names: tuple[str, ...] | None = None
) -> tuple[Tensor, list[list[str]], Tensor | None]:
    """The points of a meta-batch of one episode: features, what is known of each, and pictures.

    Args:
        learner: whose features they are.
        episodes: one, stacked.
        names: of the classes by label; None: they are numbered from 1 on.

    Returns:
        Features (n, D) of support and then queries, on at most n axes; rows of `HEADER`; pictures
        (n, 3, h, w) in [0, 1], None where inputs are no images.
    """
    assert isinstance(learner.task, Classification)
    with torch.inference_mode(False), torch.no_grad():
        own = map_tensors(torch.clone, episodes)
        features = torch.cat(learner.embed_meta_batch(own, training=False), 1)[0].flatten(1)
    predicted = learner.evaluate(episodes).outputs[0].argmax(-1)
    support, query = (
        learner.task.labels(of.targets[0]) for of in (episodes.support, episodes.query)
    )
    told = [*(names or map(str, range(1, int(support.max()) + 2))), NONE]
    word = [" ".join(printable(name).split()) for name in told]  # a tab would end the cell
    rows = [[word[label], "support", ""] for label in support.tolist()]
    for label, given in zip(query.tolist(), predicted.tolist(), strict=True):
        rows.append([word[label] if label >= 0 else "?", "query", word[given]])
    one: Episode = map_tensors(lambda tensor: tensor[0], episodes)
    return on_few_axes(features.float().cpu()), rows, pictures_of(joined(one, 0))


def on_few_axes(features: Tensor) -> Tensor:
    """Features (n, D) turned so that n numbers each are enough.

    Lengths, angles and distances stay as they are: of X = U S V^T the points U S. A map of
    features has tens of thousands of numbers, which TensorBoard would read as text.
    """
    if features.shape[1] <= len(features):
        return features
    left, sizes, _ = torch.linalg.svd(features.double(), full_matrices=False)
    points: Tensor = (left * sizes).float()
    return points


def pictures_of(inputs: Any) -> Tensor | None:
    """Images (n, C, H, W) in colours and small, (n, 3, h, w); None where inputs are none."""
    if not isinstance(inputs, Tensor) or inputs.dim() != 4:
        return None
    images = inputs[:, -3:] if inputs.shape[1] > 3 else inputs  # of a clip, the latest frame
    images = images.float().cpu().clamp(0, 1)
    images = images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)
    if max(images.shape[-2:]) > SIDE:
        images = F.interpolate(images, (SIDE, SIDE), mode="area")
    return images
