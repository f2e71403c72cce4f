"""Says where a run wrote when its disk was full: what loggers raise does not."""

import lightning as L
from lightning.pytorch.callbacks import Callback

from fewshot.callbacks.run_folder import run_folder
from fewshot.errors import chain
from fewshot.files.room import is_without_room


class FullDisk(Callback):
    """Name the run's folder in errors that say that there is no room, but not where."""

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Add the folder."""
        for error in chain(exception):
            if is_without_room(error) and error.filename is None:
                error.filename = str(run_folder(trainer))
