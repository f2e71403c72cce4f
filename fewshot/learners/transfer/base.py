"""The transfer family: supervised training on all training classes, then a classifier per episode.

Shapes: "..." before others is the axis B of a meta-batch, or nothing where one episode is meant.
"""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Range
from fewshot.backbones.base import Backbone
from fewshot.episodes.types import ExampleBatch, Examples
from fewshot.errors import FewshotError
from fewshot.learners.comparing import ComparingLearner
from fewshot.learners.lightning_internals import attached_trainer
from fewshot.learners.outcome import Outcome


class TransferLearner(ComparingLearner):
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

    def __init__(
        self, backbone: Backbone | nn.Module, train_classes: Annotated[int, Range(2)], **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        if self.none.active and self.none.rule == "learned":
            raise FewshotError(
                f"{type(self).__name__} trains on examples, which are all of some class: it learns"
                " no rule for none of the above; set nota to minimum, probability or similarity"
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

    def as_batch(self, batch: Any) -> ExampleBatch:
        """What a loader gave, as plain examples."""
        return ExampleBatch.of(batch, type(self).__name__)

    def training_outcomes(self, batch: Any) -> Iterator[Outcome]:
        """The cross-entropy of each example (n,) among all training classes."""
        inputs, targets, _ = self.as_batch(batch).examples
        logits = self.classifier(self.embed(inputs))
        accuracy = (logits.argmax(-1) == targets).float()
        losses = F.cross_entropy(logits, targets, reduction="none")
        yield Outcome(losses, {"accuracy": accuracy}, logits)

    def on_fit_start(self) -> None:
        """Refuse a benchmark with another number of training classes."""
        super().on_fit_start()
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

    def fit_all(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """The same with an axis B."""
        return self.fit(features, targets, way)

    def compare_all(self, predictors: Any, features: Tensor) -> Tensor:
        """The same with an axis B."""
        return self.compare(predictors, features)

    def adapt(self, support: Examples) -> Any:
        """The predictor of one support set, of any way; no gradient goes through it."""
        with torch.no_grad():
            return super().adapt(support)

    # ------------------------------------------------------------------ checkpoints

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take a checkpoint of other training classes too, where nothing is trained.

        Episodes do not ask for them.
        """
        trainer = attached_trainer(self)
        held = checkpoint.get("hyper_parameters", {}).get("train_classes", self.train_classes)
        if held != self.train_classes and trainer is not None and trainer.state.fn != "fit":
            self.train_classes, self.classifier = held, self.make_classifier(held).to(self.device)
        super().on_load_checkpoint(checkpoint)
