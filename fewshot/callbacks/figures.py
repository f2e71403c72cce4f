"""A figure as pixels, drawn once for loggers and a file: short runs wait for drawing."""

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from fewshot.files import atomic_write

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
"""RGB (H, W, 3)."""


def pixels(make: Callable[[], Figure | None], dpi: float) -> Pixels | None:
    """The figure that `make` makes, drawn; None where it makes none.

    Nothing is left of it. Figures are made of cycles of several megabytes, which Python looks for
    so seldom that a run with many validations grew by tens of megabytes. To look through all that
    there is takes a quarter of a second; what came since collection was stopped is the youngest
    generation, which takes milliseconds.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        return _drawn(make, dpi)
    finally:
        gc.collect(0)
        if running:
            gc.enable()


def _drawn(make: Callable[[], Figure | None], dpi: float) -> Pixels | None:
    if (figure := make()) is None:
        return None
    figure.set_dpi(dpi)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]


def save(image: Pixels, path: Path) -> None:
    """Write a PNG file, whole or not at all; its folder is made."""
    with atomic_write(path, binary=True) as file:
        Image.fromarray(image).save(file, format="PNG")
