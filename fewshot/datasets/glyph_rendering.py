"""Characters drawn from outline fonts and varied like handwriting, in integers only: the same bytes on every machine.

FreeType rasterises in fixed-point arithmetic, and everything after it here is integer arithmetic on raw bits of
PCG64, whose stream numpy guarantees: nothing depends on a vector unit, a BLAS, a hash seed or the number of threads.
Lengths are in units of the canvas, which is `DETAIL` times finer than the images.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from fewshot.errors import FewshotError

FACES = (
    "DejaVuSans",
    "DejaVuSans-BoldOblique",
    "DejaVuSans-Oblique",
    "DejaVuSans-Bold",
    "DejaVuSerif",
    "DejaVuSerif-BoldItalic",
    "DejaVuSansMono-Oblique",
    "DejaVuSansMono-Bold",
    "DejaVuSerif-Italic",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "DejaVuSansMono-BoldOblique",
)
"""The fonts that matplotlib brings along, the reference first; files in ``mpl-data/fonts/ttf``."""

EXAMPLES = 20
SIDE = 28
DETAIL = 3
CANVAS = 80
GLYPH = 60
SIZES = (32, 36, 40, 46, 52, 59, 67, 76, 86, 97, 110, 124, 140)
SEED = 2011

STRETCH, SHEAR, TURN, SHIFT = 48, 40, 48, 5 
THICKER = 3
KNOT, BEND = 8, 9
NOISE = 24

SUBPIXEL = 64


def face_path(face: str) -> Path:
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
    if not path.is_file():
        raise FewshotError(f"the font {path} is missing: reinstall matplotlib with its own fonts (pip install matplotlib)")
    return path


@lru_cache
def coverage() -> dict[str, tuple[str, ...]]:
    """The faces that draw each character."""
    faces: dict[str, tuple[str, ...]] = {}
    for face in FACES:
        for code in FT2Font(face_path(face)).get_charmap():
            faces[chr(code)] = (*faces.get(chr(code), ()), face)
    return faces


@lru_cache(maxsize=None)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(face_path(face), size, layout_engine=ImageFont.Layout.BASIC)


def draw(character: str, face: str) -> NDArray[np.uint8]:
    left, top, right, bottom = _font(face, SIZES[-1]).getbbox(character)
    extent = max(right - left, bottom - top)
    size = max((s for s in SIZES if s * extent <= GLYPH * SIZES[-1]), default=SIZES[0])
    font = _font(face, size)
    left, top, right, bottom = font.getbbox(character)
    image = Image.new("L", (CANVAS, CANVAS))
    corner = ((CANVAS - right - left) // 2, (CANVAS - bottom - top) // 2)
    ImageDraw.Draw(image).text(corner, character, fill=255, font=font)
    return np.asarray(image)


def _uniform(bits: NDArray[np.uint16], reach: int) -> NDArray[np.int32]:
    return (bits.astype(np.int32) * (2 * reach + 1) >> 16) - reach


def _spline() -> NDArray[np.int32]:
    box = np.ones(KNOT, np.int32)
    bump = np.convolve(np.convolve(box, box), box)
    knots = (SIDE + 2*KNOT - 1) // KNOT + 1
    basis = np.zeros((SIDE, knots), np.int32)
    for knot in range(knots):
        for pixel in range(SIDE):
            at = pixel - KNOT * (knot - 2)
            if 0 <= at < len(bump):
                basis[pixel, knot] = bump[at]
    return basis

BASIS = _spline()

def _widen(images):
    out = images.copy()
    out[:, 1:] = np.maximum(out[:, 1:], images[:, :-1])
    out[:, :-1] = np.maximum(out[:, :-1], images[:, 1:])
    out[:, :, 1:] = np.maximum(out[:, :, 1:], images[:, :, :-1])
    out[:, :, :-1] = np.maximum(out[:, :, :-1], images[:, :, 1:])
    return out

def _blur(images):
    im = images.astype(np.uint16)
    rows = im[:, :-2] + im[:, 1:-1] + im[:, 2:]
    s = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return np.pad(s // 9, ((0,0),(1,1),(1,1)))

def vary(sources: NDArray[np.uint8], seed) -> NDArray[np.uint8]:
    n = len(sources)
    knots = BASIS.shape[1]
    words = 8 + 2 * knots * knots + SIDE * SIDE
    raw = np.random.PCG64(seed).random_raw(n * (-(-words // 4))).astype("<u8").view("<u2").reshape(n, -1)
    layers = [sources]
    for _ in range(THICKER): layers.append(_widen(layers[-1]))
    thick = raw[:, 7].astype(np.int32) * (THICKER+1) >> 16
    src = _blur(np.stack(layers)[thick, np.arange(n)]).astype(np.int32)
    off = (2 * np.arange(SIDE, dtype=np.int32) - SIDE + 1) * (DETAIL * SUBPIXEL // 2)
    x, y = off[None, None, :], off[None, :, None]
    c = lambda k, r: _uniform(raw[:, k], r)[:, None, None]
    turn, shear = c(0, TURN), c(1, SHEAR)
    bend = _uniform(raw[:, 8:8+2*knots*knots], BEND * SUBPIXEL).reshape(n, 2, knots, knots)
    field = (BASIS @ bend @ BASIS.T) >> 12
    mid = (CANVAS - 1) * SUBPIXEL // 2
    px = ((256 + c(2, STRETCH)) * x + (shear - turn) * y >> 8) + c(4, SHIFT * SUBPIXEL) + field[:, 0] + mid
    py = ((256 + c(3, STRETCH)) * y + (shear + turn) * x >> 8) + c(5, SHIFT * SUBPIXEL) + field[:, 1] + mid
    px = px.clip(0, (CANVAS - 1) * SUBPIXEL - 1); py = py.clip(0, (CANVAS - 1) * SUBPIXEL - 1)
    fx, fy = px % SUBPIXEL, py % SUBPIXEL
    at = (px // SUBPIXEL) + (py // SUBPIXEL) * CANVAS + (np.arange(n, dtype=np.int32) * CANVAS * CANVAS)[:, None, None]
    flat = src.reshape(-1)
    v = (flat[at] * (SUBPIXEL - fx) + flat[at + 1] * fx) * (SUBPIXEL - fy) + (flat[at + CANVAS] * (SUBPIXEL - fx) + flat[at + CANVAS + 1] * fx) * fy
    v >>= 12
    noise = _uniform(raw[:, -SIDE*SIDE:], NOISE).reshape(n, SIDE, SIDE)
    return (v + noise).clip(0, 255).astype(np.uint8)[:, None]


def render(character: str) -> NDArray[np.uint8]:
    faces = coverage()[character]
    sources = np.stack([draw(character, face) for face in faces])
    return vary(sources[np.arange(EXAMPLES) % len(faces)], [SEED, ord(character)])
