"""The transfer family: supervised training on all training classes, then a classifier per episode.

Shapes: "..." before others is the axis B of a meta-batch, or nothing where one episode is meant.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.base import Outcome
from fewshot.learners.embedding import at_least_float32, full_precision
from fewshot.learners.rejecting import RejectingLearner


class TransferLearner(RejectingLearner):
    """Transfer learning: tell all training classes apart, then classify episodes by the features.

    Training takes plain batches of the training classes' examples (the benchmark's `batch_size`; an
    epoch is one pass over them). Validation and test are episodes of any way: a subclass says how
    the support features become a predictor (`fit`) and how that judges query features (`compare`),
    for all episodes of a meta-batch at once. Adaptation draws nothing at random, so that the same
    episode always gives the same result.

    At evaluation `inductive` batch normalisation uses the running averages of training,
    `transductive` the statistics of each episode's support and query together.

    Args:
        backbone: the network from inputs to features.
        train_classes: classes that training tells apart; a DataModule's `train_classes`.
        **kwargs: arguments of `MetaLearner`.
    """

    trains_on = "examples"

    def __init__(self, backbone: Backbone | nn.Module, train_classes: int, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if self.none.active and self.none.rule == "learned":
            raise FewshotError(
                f"{type(self).__name__} trains on examples, which are all of some class: it learns"
                " no rule for none of the above; set nota to minimum, probability or similarity"
            )
        if train_classes < 2:
            raise FewshotError(
                f"train_classes is {train_classes}; set train_classes >= 2, as the benchmark says"
            )
        self.train_classes = train_classes
        self.classifier = self.make_classifier(train_classes)

    def make_classifier(self, classes: int) -> nn.Module:
        """The module from features (n, D) to logits (n, classes) that training uses.

        A linear layer, bias zero.
        """
        classifier = nn.Linear(self.features, classes)
        nn.init.zeros_(classifier.bias)
        return classifier

    @abstractmethod
    def fit(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """A predictor (tensor tree) from features (..., S, D), labels (..., S) in 0..`way`-1."""

    @abstractmethod
    def compare(self, predictor: Any, features: Tensor) -> Tensor:
        """Logits (..., n, N) of query features (..., n, D)."""

    # ------------------------------------------------------------------ training

    def training_outcomes(self, batch: Any) -> Iterator[Outcome]:
        """The cross-entropy of each example (n,) among all training classes."""
        if not isinstance(batch, Examples):
            raise FewshotError(
                f"{type(self).__name__} trains on Examples (inputs and labels), but the loader"
                f" gives {type(batch).__name__}; train it on one of the library's benchmarks, or"
                " yield Examples"
            )
        logits = self.classifier(self.embed(batch.inputs))
        accuracy = (logits.argmax(-1) == batch.targets).float()
        yield Outcome(
            F.cross_entropy(logits, batch.targets, reduction="none"), {"accuracy": accuracy}, logits
        )

    def on_fit_start(self) -> None:
        """Refuse a benchmark with another number of training classes."""
        classes = getattr(
            getattr(self.trainer, "datamodule", None), "train_classes", self.train_classes
        )
        if classes != self.train_classes:
            raise FewshotError(
                f"train_classes is {self.train_classes}, but the benchmark has {classes}; set it to"
                f" {classes}"
            )

    def _diverged(self, step: int, batch: Any) -> str:
        return (
            f"the gradient of step {step} is not finite;"
            " lower the optimizer's lr, set gradient_clip, or nonfinite: skip"
        )

    # ------------------------------------------------------------------ the two verbs, and the meta

    def adapt(self, support: Examples) -> Any:
        """The predictor of one support set, of any way.

        Batch normalisation by the running averages.
        """
        with evaluation_mode(self.backbone), torch.no_grad():
            features, way = self.embed(support.inputs), int(support.targets.max()) + 1
            with full_precision(features):
                return self.fit(at_least_float32(features), support.targets, way)

    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...)."""
        with evaluation_mode(self.backbone):
            features = self.embed(inputs)
            with full_precision(features):
                logits: Tensor = self.none(self.compare(adapted, at_least_float32(features)))
                return logits

    def run(self, meta_batch: Episode, training: bool) -> Iterator[Outcome]:
        """Embed the meta-batch in one pass, fit all predictors at once, and judge the queries."""
        support, query = self.embed_meta_batch(meta_batch, training=False)
        labels = meta_batch.support.targets
        with full_precision(support):
            predictors = self.fit(support, labels, int(labels.max()) + 1)
            outputs = self.none(self.compare(predictors, query))
        yield self.judged(outputs, meta_batch.query.targets)

    # ------------------------------------------------------------------ checkpoints

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take a checkpoint of other training classes too, where nothing is trained.

        Episodes do not ask for them.
        """
        trainer = self._trainer
        held = checkpoint.get("hyper_parameters", {}).get("train_classes", self.train_classes)
        if held != self.train_classes and trainer is not None and trainer.state.fn != "fit":
            self.train_classes, self.classifier = held, self.make_classifier(held).to(self.device)
        super().on_load_checkpoint(checkpoint)
