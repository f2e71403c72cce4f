"""What a run's validations gave, in a file for whoever watches the run, as `fewshot sweep` does."""

import json
import math

import lightning as L
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_only

from fewshot.callbacks.run_folder import run_folder
from fewshot.errors import FewshotError
from fewshot.files import atomic_write
from fewshot.learners.base import MetaLearner

VALIDATIONS = "validations.json"
"""The file in the run's folder: pairs of a meta-step and the value, null if that is not finite."""


class ValidationValues(Callback):
    """Write what each validation gives, by the metric of the learner's task, into the run's folder.

    A run that goes on adds to the file. What it validates once more takes the old one's place.
    """

    @rank_zero_only
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the value of the validation that has just ended.

        Raises:
            FewshotError: it gave no such metric.
        """
        is_counted = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not is_counted or not isinstance(pl_module, MetaLearner):
            return
        metric = f"val/{pl_module.task.monitor[0]}"
        if metric not in trainer.callback_metrics:
            raise FewshotError(
                f"the run is judged by {metric}, which no validation gives; have the learner log it"
            )
        value = trainer.callback_metrics[metric].item()
        file = run_folder(trainer) / VALIDATIONS
        known = dict(json.loads(file.read_text())) if file.exists() else {}
        known[trainer.global_step] = value if math.isfinite(value) else None
        with atomic_write(file) as stream:
            json.dump([*known.items()], stream, allow_nan=False)
