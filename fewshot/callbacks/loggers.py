"""Pictures and tables for the loggers of a run that take them; files have them anyway."""

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger, MLFlowLogger, TensorBoardLogger

from fewshot.callbacks.board import log_text, markdown
from fewshot.callbacks.figures import Pixels

TOLD = 500  # rows up to which TensorBoard's TEXT has a table


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
    board: bool = False,
) -> None:
    """Send a table to every logger that takes one; on the first rank.

    Args:
        path: the file that has it.
        columns: their names.
        rows: plain values.
        trainer: whose loggers are meant.
        tag: what it is called there.
        board: whether TensorBoard's TEXT has it too, as far as it goes.
    """
    data: list[list[Any]] | None = None
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger) and board:
            few = [*islice(rows, TOLD + 1)]
            rest = f"\n\nthe first {TOLD}; others in {path.name}" if len(few) > TOLD else ""
            log_text(logger, tag, markdown(columns, few[:TOLD]) + rest, trainer.global_step)
        elif isinstance(logger, MLFlowLogger):
            logger.experiment.log_artifact(logger.run_id, str(path), tag)
        elif hasattr(logger, "log_table"):  # Weights & Biases', and what is made like it
            data = data or [list(row) for row in rows]
            logger.log_table(key=tag, columns=list(columns), data=data)
