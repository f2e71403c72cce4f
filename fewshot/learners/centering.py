"""Features that are centred at the mean of all training examples, and of unit length."""

import math
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.comparing import ComparingLearner

Transform: TypeAlias = Literal["none", "l2", "cl2n"]


class CenteringLearner(ComparingLearner):
    """Mix-in: features are transformed before anything is made of them.

    The centre is the mean feature of all examples of the training classes; it is computed before
    the first evaluation and belongs to the checkpoint.

    Args:
        backbone: the network from inputs to features.
        transform: of the features: `none`, `l2` (unit length) or `cl2n` (centred, then unit
            length).
        **kwargs: arguments of the next base.
    """

    def __init__(
        self, backbone: Backbone | nn.Module, transform: Transform = "cl2n", **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.transform: Transform = transform
        self.center: Tensor
        self.register_buffer("center", torch.full((self.features,), math.nan))  # not yet known

    def transformed(self, features: Tensor) -> Tensor:
        """Features (..., D) as `transform` says."""
        if self.transform == "cl2n":
            features = features - self.center
        return features if self.transform == "none" else F.normalize(features, dim=-1)

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

    def find_center(self) -> None:
        """Compute the centre from the benchmark's training classes, if needed and not known."""
        if self.transform != "cl2n" or not self.center.isnan().any():
            return
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None or not hasattr(datamodule, "training_examples"):
            return  # `run` says what to do
        to_device = self.trainer.strategy.batch_to_device
        with self.holding_features():
            self.embed_ahead("train", math.inf)
            self.set_center(
                to_device(batch, self.device).examples.inputs
                for batch in datamodule.training_examples()
            )

    def refuse_unknown_center(self) -> None:
        """Say what to do where there is no centre."""
        if self.transform == "cl2n" and self.center.isnan().any():
            raise FewshotError(
                f"{type(self).__name__} does not know its centre; call set_center(batches of"
                " training inputs), test it on a benchmark of this library, or set transform: l2"
            )

    def on_validation_start(self) -> None:
        """Find the centre."""
        self.find_center()
        super().on_validation_start()

    def on_test_start(self) -> None:
        """Find the centre, and then the threshold for none of the above."""
        self.find_center()
        super().on_test_start()

    def on_predict_start(self) -> None:
        """Find the centre, and then the threshold for none of the above."""
        self.find_center()
        super().on_predict_start()

    def adapt(self, support: Examples) -> Any:
        """The predictor of one support set, of any way.

        Batch normalisation by the running averages.
        """
        self.refuse_unknown_center()
        return super().adapt(support)

    def logits(self, embedded: Episode, training: bool) -> Tensor:
        """Logits (B, n, N) of the query features of B episodes."""
        self.refuse_unknown_center()
        return super().logits(embedded, training)
