"""The record of what a run was started with."""

from itertools import count

import lightning as L
from lightning.pytorch.cli import SaveConfigCallback

from fewshot.callbacks.run_folder import run_folder
from fewshot.files import atomic_write


class SavedConfig(SaveConfigCallback):
    """Write `config.yaml` into the run's folder; each further start there adds `config-1.yaml`, ...

    What made the weights is never rewritten.
    """

    def save_config(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Write the next of them. Lightning has the first rank alone do it, once a start."""
        folder = run_folder(trainer)
        names = ("config.yaml" if not n else f"config-{n}.yaml" for n in count())
        path = next(folder / name for name in names if not (folder / name).exists())
        with atomic_write(path) as file:
            # parsing has checked it, which takes half of the time again
            file.write(self.parser.dump(self.config, skip_none=False, skip_validation=True))
