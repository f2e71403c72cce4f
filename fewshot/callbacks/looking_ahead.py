"""What a test would refuse is refused before training begins, not after it."""

import lightning as L
from lightning.pytorch.callbacks import Callback

from fewshot.datamodules.base import EpisodicDataModule


class LookingAhead(Callback):
    """Make the loader of the test episodes when a training begins that a test follows.

    It is where too few episodes for the processes, or too few classes or examples for an episode,
    are found.
    """

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make it, and draw nothing.

        Raises:
            FewshotError: the benchmark has no such test episodes.
        """
        benchmark = getattr(trainer, "datamodule", None)
        if isinstance(benchmark, EpisodicDataModule):
            benchmark.test_dataloader()
