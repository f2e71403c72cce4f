"""A figure as pixels, drawn once for TensorBoard and a file: short runs wait for drawing."""

from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

if TYPE_CHECKING:  # it takes a while to import
    from torch.utils.tensorboard import SummaryWriter

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
"""RGB (H, W, 3)."""


def pixels(figure: Figure, dpi: float) -> Pixels:
    """The figure, drawn."""
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def save(image: Pixels, path: Path) -> None:
    """Write a PNG file; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def tensorboard(trainer: L.Trainer) -> "SummaryWriter | None":
    """What takes images, if TensorBoard is where the run is logged.

    Else nothing need be drawn for it.
    """
    return trainer.logger.experiment if isinstance(trainer.logger, TensorBoardLogger) else None


def log(image: Pixels, trainer: L.Trainer, tag: str) -> None:
    """Send it to TensorBoard, if that is where the run is logged."""
    if (board := tensorboard(trainer)) is not None:
        board.add_image(tag, image, trainer.global_step, dataformats="HWC")
