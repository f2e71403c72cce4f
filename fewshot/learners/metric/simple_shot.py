"""SimpleShot (Wang et al., arXiv:1911.04623)."""

import math
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means
from fewshot.learners.metric.prototypical_network import negative_squared_distance
from fewshot.learners.outcome import Outcome


class SimpleShot(MetricLearner):
    """SimpleShot: nearest class mean of a trained network's centred, normalised features.

    Nothing is trained: `fewshot test --model SimpleShot --model.weights FILE.ckpt` takes the
    backbone of any learner's checkpoint. The centre is the mean feature of all examples of the
    training classes; it is computed before the first evaluation and belongs to the checkpoint.
    Paper: arXiv:1911.04623.

    Args:
        backbone: the embedding network.
        transform: of the features: `none`, `l2` (unit length) or `cl2n` (centred, then unit
            length).
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        transform: Literal["none", "l2", "cl2n"] = "cl2n",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.transform = transform
        self.center: Tensor
        self.register_buffer("center", torch.full((self.features,), math.nan))  # not yet known

    # ------------------------------------------------------------------ the centre

    def set_center(self, batches: Iterable[Inputs]) -> None:
        """Set the centre to the mean feature of all inputs (n, ...) of `batches`.

        By the running averages.

        Under the `transductive` policy, batch normalisation uses the statistics of each batch
        instead.
        """
        total, examples = torch.zeros_like(self.center, dtype=torch.float64, device="cpu"), 0
        by_batch = self.batchnorm == "transductive"
        with torch.no_grad(), evaluation_mode(self.backbone):
            for inputs in batches:
                with EpisodeNorm(exact_vmap=False) if by_batch else nullcontext():
                    features = self.embed(inputs)
                total += features.sum(0).cpu()
                examples += len(features)
        self.center.copy_(total / max(examples, 1))

    def _find_center(self) -> None:
        """Compute the centre from the benchmark's training classes, if needed and not known."""
        if self.transform != "cl2n" or not self.center.isnan().any():
            return
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "training_examples"):
            return  # `run` says what to do
        to_device = self.trainer.strategy.batch_to_device
        self.set_center(
            to_device(batch, self.device).examples.inputs
            for batch in datamodule.training_examples()
        )

    def _refuse_unknown_center(self) -> None:
        if self.transform == "cl2n" and self.center.isnan().any():
            raise FewshotError(
                "SimpleShot does not know its centre; call set_center(batches of training inputs),"
                " test it on a benchmark of this library, or set transform: l2"
            )

    def on_validation_start(self) -> None:
        """Find the centre."""
        self._find_center()

    def on_test_start(self) -> None:
        """Find the centre, and then the threshold for none of the above."""
        self._find_center()
        super().on_test_start()

    def on_predict_start(self) -> None:
        """Find the centre, and then the threshold for none of the above."""
        self._find_center()
        super().on_predict_start()

    def configure_optimizers(self) -> Any:
        """Refuse to be trained."""
        raise FewshotError(
            "SimpleShot has nothing to train: train a backbone by another learner (--model"
            " Baseline), then `fewshot test --model SimpleShot --model.weights FILE.ckpt`"
        )

    # ------------------------------------------------------------------ classification

    def transformed(self, features: Tensor) -> Tensor:
        """Features (n, D) as `transform` says."""
        if self.transform == "cl2n":
            features = features - self.center
        return features if self.transform == "none" else F.normalize(features, dim=-1)

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """The class means (N, D) of transformed support features (S, D)."""
        return class_means(self.transformed(features), targets, way)

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Logits (n, N): minus squared distance of transformed query (n, D) to means (N, D)."""
        return negative_squared_distance(self.transformed(features), predictor)

    def adapt(self, support: Examples) -> Tensor:
        """The class means of one support set, of any way.

        Batch normalisation by the running averages.
        """
        self._refuse_unknown_center()
        means: Tensor = super().adapt(support)
        return means

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Embed the meta-batch in one pass, then compare episode by episode, vectorised."""
        self._refuse_unknown_center()
        return super().run(episodes, training)
