"""Pictures and tables for the loggers of a run that take them; files have them anyway."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger

from fewshot.callbacks.figures import Pixels


def take_images(trainer: L.Trainer) -> bool:
    """Whether any logger takes images; else nothing need be drawn for one."""
    return any(map(_takes_images, trainer.loggers))


def _takes_images(logger: Logger) -> bool:
    return isinstance(logger, TensorBoardLogger | MLFlowLogger) or hasattr(logger, "log_image")


def log_image(image: Pixels, trainer: L.Trainer, tag: str) -> None:
    """Send an image to every logger that takes one; on the first rank."""
    step = trainer.global_step
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(tag, image, step, dataformats="HWC")
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_image(logger.run_id, image, f"{tag}/step_{step}.png")
        elif _takes_images(logger):  # Weights & Biases', and what is made like it
            logger.log_image(key=tag, images=[image], step=step)  # type: ignore[attr-defined]


def log_table(
    path: Path,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    trainer: L.Trainer,
    tag: str,
) -> None:
    """Send a table to every logger that takes one; on the first rank.

    Args:
        path: the file that has it.
        columns: their names.
        rows: plain values.
        trainer: whose loggers are meant.
        tag: what it is called there.
    """
    data: list[list[Any]] | None = None
    for logger in trainer.loggers:
        if isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), tag)
        elif hasattr(logger, "log_table"):  # Weights & Biases', and what is made like it
            data = data or [list(row) for row in rows]
            logger.log_table(key=tag, columns=list(columns), data=data)
