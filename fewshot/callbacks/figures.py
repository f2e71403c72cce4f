"""A figure as pixels, drawn once for TensorBoard and for a file: drawing is what a short run waits for."""

from pathlib import Path

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

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


def log(image: Pixels, trainer: L.Trainer, tag: str) -> None:
    """Send it to TensorBoard, if that is where the run is logged."""
    if isinstance(trainer.logger, TensorBoardLogger):
        trainer.logger.experiment.add_image(tag, image, trainer.global_step, dataformats="HWC")
