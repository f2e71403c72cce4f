"""A figure as pixels, drawn once for loggers and a file: short runs wait for drawing."""

from pathlib import Path

import numpy as np
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
