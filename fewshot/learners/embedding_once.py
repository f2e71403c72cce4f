"""Each example of a validation or test is embedded once: its features are held while it lasts."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from fewshot.arguments import NonNegative
from fewshot.backbones.base import Backbone
from fewshot.learners.base import MetaLearner
from fewshot.learners.bookkeeping import OF_TRAINING
from fewshot.learners.features_held import FeaturesHeld
from fewshot.learners.lightning_internals import attached_trainer


class EmbedsOnce(MetaLearner):
    """A learner that holds the features of a validation's, test's or prediction's examples.

    Args:
        backbone: the network from inputs to features.
        feature_memory: memory in MiB, of the device that computes, for the features of examples
            while they are evaluated, so that each is embedded once; those beyond it are embedded
            whenever an episode asks for them, as all are with 0.
        **kwargs: arguments of `MetaLearner`.
    """

    bookkeeping = (*OF_TRAINING, "features_held")

    def __init__(
        self, backbone: Backbone | nn.Module, feature_memory: NonNegative = 512.0, **kwargs: Any
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.feature_memory = feature_memory
        self.features_held: FeaturesHeld | None = None

    def hold_features(self) -> None:
        """Begin to hold features.

        Not where ranks compute each forward pass together, as they ask for different examples; nor
        where there is nothing to compute, or on devices whose generators cannot be looked at.
        """
        strategy = getattr(attached_trainer(self), "strategy", None)
        alone = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
        known = self.device.type in ("cpu", "cuda")
        if (
            self.feature_memory
            and alone
            and known
            and any(True for _ in self.backbone.parameters())
        ):
            self.features_held = FeaturesHeld(self, int(self.feature_memory * 2**20))

    def forget_features(self) -> None:
        """Hold none any more."""
        self.features_held = None

    @contextmanager
    def holding_features(self) -> Iterator[None]:
        """Inside, features are held."""
        self.hold_features()
        try:
            yield
        finally:
            self.forget_features()

    def on_validation_epoch_start(self) -> None:
        """Hold features for this validation alone: before the next, the weights move."""
        super().on_validation_epoch_start()
        self.hold_features()

    def on_test_epoch_start(self) -> None:
        """Hold features."""
        super().on_test_epoch_start()
        self.hold_features()

    def on_predict_epoch_start(self) -> None:
        """Hold features."""
        super().on_predict_epoch_start()
        self.hold_features()

    def on_validation_epoch_end(self) -> None:
        """Hold them no longer."""
        self.forget_features()
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        """Hold them no longer."""
        self.forget_features()
        super().on_test_epoch_end()

    def on_predict_epoch_end(self) -> None:
        """Hold them no longer."""
        self.forget_features()
        super().on_predict_epoch_end()
