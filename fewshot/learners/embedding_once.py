"""Each example of a validation or test is embedded once: its features are held while it lasts.

Where the network is frozen they are held in training too, and kept for the next run.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch.distributed
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import nn

from fewshot.arguments import NonNegative
from fewshot.backbones.base import Backbone
from fewshot.episodes.streams import Stage
from fewshot.files.caches import FEATURES
from fewshot.files.places import data_root
from fewshot.learners.base import MetaLearner
from fewshot.learners.bookkeeping import OF_TRAINING
from fewshot.learners.features_held import FeaturesHeld
from fewshot.learners.features_kept import FeaturesKept, stands_still
from fewshot.learners.lightning_internals import attached_trainer


class EmbedsOnce(MetaLearner):
    """A learner that holds the features of a validation's, test's or prediction's examples.

    Args:
        backbone: the network from inputs to features.
        feature_memory: memory in MiB, of the device that computes, for the features of examples
            while they are evaluated, so that each is embedded once; those beyond it are embedded
            whenever an episode asks for them, as all are with 0.
        feature_cache: where features of frozen backbones are kept for other runs: a folder; true
            means `features` in `$FEWSHOT_DATA` or the user's cache folder, false nowhere. They are
            held in training too, unless images are augmented. It may be deleted at any time;
            beyond 10 GB (`$FEWSHOT_FEATURES_SIZE`) the networks used least recently go.
        **kwargs: arguments of `MetaLearner`.
    """

    bookkeeping = (*OF_TRAINING, "features_held", "features_kept")
    embeds_maps: bool = False
    """Whether `embed` reads the backbone's maps, not its features."""

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        feature_memory: NonNegative = 512.0,
        feature_cache: bool | str = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.feature_memory, self.feature_cache = feature_memory, feature_cache
        self.features_held: FeaturesHeld | None = None
        self.features_kept: FeaturesKept | None = None

    def hold_features(self) -> None:
        """Begin to hold features.

        Not where ranks compute each forward pass together, as they ask for different examples; nor
        where there is nothing to compute, or on devices whose generators cannot be looked at.
        """
        strategy = getattr(attached_trainer(self), "strategy", None)
        alone = isinstance(strategy, SingleDeviceStrategy | DDPStrategy)
        known = self.device.type in ("cpu", "cuda")
        some = any(True for _ in self.backbone.parameters())
        if not (self.feature_memory and alone and known and some):
            return
        limit = int(self.feature_memory * 2**20)
        if not stands_still(self.backbone) or self.embeds_maps:
            self.features_held = FeaturesHeld(self, limit)
        elif self.features_kept is None:
            self.features_kept = FeaturesKept(self.backbone, limit, self._folder())

    def _folder(self) -> Path | None:
        if isinstance(self.feature_cache, str):
            return Path(self.feature_cache).expanduser()
        return data_root(None) / FEATURES if self.feature_cache else None

    def forget_features(self) -> None:
        """Hold none any more, but those of a frozen network; those are written."""
        self.features_held = None
        if self.features_kept is not None and self.trainer.is_global_zero:
            self.features_kept.save()

    @contextmanager
    def holding_features(self) -> Iterator[None]:
        """Inside, features are held."""
        self.hold_features()
        try:
            yield
        finally:
            self.forget_features()

    # ------------------------------------------------------------------ ahead of the episodes

    def embed_ahead(self, stage: Stage, batches: float) -> None:
        """Embed a split's examples before so many batches ask for them, if they ask for most.

        Ranks share the work. Where they ask for few, each is embedded when it is asked for.
        """
        kept, trainer = self.features_kept, self.trainer
        datamodule: Any = getattr(trainer, "datamodule", None)
        if kept is None or stage in kept.ahead or not hasattr(datamodule, "every_example"):
            return
        number = datamodule.number_of_examples(stage)
        plain = stage == "train" and self.trains_on == "examples"
        if 2 * batches * datamodule.examples_a_batch(stage, plain) < number:
            return
        rank, ranks = trainer.global_rank, trainer.world_size
        to_device = trainer.strategy.batch_to_device
        shares = datamodule.every_example(stage, rank, ranks)
        mine = (to_device(batch, self.device).examples.inputs for batch in shares)
        with torch.inference_mode(False), trainer.precision_plugin.forward_context():
            kept.embed_ahead(
                stage, mine, number, _gathered if ranks > 1 else None, trainer.is_global_zero
            )

    def augmented(self) -> bool:
        """Whether the inputs of training are changed at random, or nobody can tell."""
        return bool(getattr(getattr(self.trainer, "datamodule", None), "augments", True))

    def on_train_start(self) -> None:
        """Hold the features of a frozen network while others train."""
        super().on_train_start()
        if stands_still(self.backbone) and not self.embeds_maps and not self.augmented():
            self.hold_features()
            steps = self.trainer.estimated_stepping_batches - self.trainer.global_step
            self.embed_ahead("train", steps)

    def on_validation_epoch_start(self) -> None:
        """Hold features for this validation alone: before the next, the weights move."""
        super().on_validation_epoch_start()
        self.hold_features()
        if not self.trainer.sanity_checking:
            self.embed_ahead("val", math.fsum(self.trainer.num_val_batches))

    def on_test_epoch_start(self) -> None:
        """Hold features."""
        super().on_test_epoch_start()
        self.hold_features()
        self.embed_ahead("test", math.fsum(self.trainer.num_test_batches))

    def on_predict_epoch_start(self) -> None:
        """Hold features."""
        super().on_predict_epoch_start()
        self.hold_features()
        self.embed_ahead("test", math.fsum(self.trainer.num_predict_batches))

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

    def teardown(self, stage: str) -> None:
        """Leave no features behind, which would be written with the learner."""
        super().teardown(stage)
        self.features_held = self.features_kept = None


def _gathered(own: dict[Any, Any]) -> list[dict[Any, Any]]:
    """What each rank has, on every rank."""
    found: list[dict[Any, Any]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(found, own)
    return found
