"""Characters drawn from outline fonts and varied as a hand would vary them.

The same bytes come out on every machine: FreeType rasterises in fixed-point arithmetic, and all
that follows is integer arithmetic on the raw bits of PCG64, a stream that numpy keeps as it is for
ever. Nothing depends on a vector unit, a BLAS, a number of threads or a hash seed.

Lengths are in canvas pixels, `DETAIL` of them to an image pixel, unless a comment says otherwise.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, features

from fewshot.errors import FewshotError

FACES = (
    "DejaVuSans",  # the reference: every character of the benchmark is in it
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
"""The fonts that matplotlib brings (``mpl-data/fonts/ttf``), in the order of their turns."""

EXAMPLES = 20  # a class, as in Omniglot
SIDE = 28  # of an image, in image pixels
DETAIL = 3
CANVAS = 80
GLYPH = 60  # the longer side of a glyph on its canvas, so 20 image pixels
# font sizes (pixels an em) are multiples of it: opening a font costs more than drawing a glyph
SIZE_STEP = 6
SEED = 2011

# The strength of the variation; a value is drawn uniformly from -x ... x. Chosen such that on 5-way
# 1-shot test episodes the nearest neighbour on raw pixels is right for 62 % of the queries, and a
# PrototypicalNetwork (Conv4) for 94 % after only 700 training episodes.
STRETCH, TURN, SHEAR = 40, 40, 36  # entries of the affine map, in 1/256
SHIFT = 3
BEND = 8  # of each knot of the elastic field
KNOTS_APART = 8  # in image pixels
KNOTS = (SIDE - 1) // KNOTS_APART + 3  # along each side of the image
NOISE = 24  # grey levels
THICKER = 2  # strokes grow by 0 ... 2 canvas pixels on each side

_SUBPIXELS = 64  # to a canvas pixel: the resolution of coordinates


def font_file(face: str) -> Path:
    """The file of a face of `FACES`.

    Raises:
        FewshotError: this installation of matplotlib lacks it.
    """
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{face}.ttf")
    if not path.is_file():
        raise FewshotError(
            f"the font {path} is missing; reinstall matplotlib from its wheel, which contains it"
        )
    return path


def fonts_version() -> str:
    """What the drawn bytes depend on: FreeType's version and a digest of the fonts."""
    digest = hashlib.sha256(b"".join(font_file(face).read_bytes() for face in FACES)).hexdigest()
    return f"freetype{features.version('freetype2')}-fonts{digest[:8]}"


@lru_cache
def faces_by_character() -> dict[str, tuple[str, ...]]:
    """The faces that contain each character, in the order of `FACES`."""
    faces: dict[str, tuple[str, ...]] = {}
    for face in FACES:
        for code in FT2Font(str(font_file(face))).get_charmap():
            faces[chr(code)] = (*faces.get(chr(code), ()), face)
    return faces


@lru_cache(maxsize=256)
def _font(face: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(font_file(face)), size, layout_engine=ImageFont.Layout.BASIC)


def _ink(character: str, face: str, size: int) -> Image.Image:
    """A glyph cropped to its ink.

    The font's own box would not do: it takes in the space beside the glyph.
    """
    font = _font(face, size)
    left, top, right, bottom = (int(edge) for edge in font.getbbox(character))
    image = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(image).text((-left, -top), character, fill=255, font=font)
    return image.crop(image.getbbox())


def draw(character: str, face: str, size_step: int = SIZE_STEP) -> NDArray[np.uint8]:
    """A glyph alone, upright, centred, ink 255 on 0: (CANVAS, CANVAS), longer side <= `GLYPH`."""
    size = GLYPH**2 // max(_ink(character, face, GLYPH).size)
    ink = _ink(character, face, max(size - size % size_step, size_step))
    image = Image.new("L", (CANVAS, CANVAS))
    image.paste(ink, ((CANVAS - ink.width) // 2, (CANVAS - ink.height) // 2))
    return np.asarray(image)


def _thicken(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each pixel becomes the brightest of itself and its four neighbours.

    The border must be dark.
    """
    shifted = [np.roll(images, step, axis) for axis in (1, 2) for step in (-1, 1)]
    return np.asarray(np.maximum.reduce([images, *shifted]))


def _between(bits: NDArray[np.int32], reach: NDArray[np.int32] | int) -> NDArray[np.int32]:
    """Integers in [-reach, reach], of 16 random bits each; reach < 16384, lest int32 overflows."""
    return (bits * (2 * reach + 1) >> 16) - reach


def _spline_basis() -> NDArray[np.int32]:
    """Quadratic B-splines, (SIDE, knots): each row sums to ``KNOTS_APART ** 2``."""
    box = np.ones(KNOTS_APART, np.int32)
    bump = np.convolve(np.convolve(box, box), box)
    at = np.arange(SIDE)[:, None] - KNOTS_APART * (np.arange(KNOTS) - 2)
    return np.where((at >= 0) & (at < len(bump)), bump[at.clip(0, len(bump) - 1)], 0).astype(
        np.int32
    )


def _places(pose: NDArray[np.int32], knots: NDArray[np.int32]) -> NDArray[np.int32]:
    """Where on its canvas each image pixel looks: column and row in subpixels, (2, n, SIDE, SIDE).

    An affine map plus a smooth random field, out of random bits `pose` (n, 6) and `knots` (n, 2 *
    KNOTS**2).
    """
    reach = np.array(
        [STRETCH, STRETCH, TURN, SHEAR, SHIFT * _SUBPIXELS, SHIFT * _SUBPIXELS], np.int32
    )
    wide, high, turn, shear, right, down = _between(pose, reach).T[:, :, None, None]
    centred = (2 * np.arange(SIDE, dtype=np.int32) - SIDE + 1) * (DETAIL * _SUBPIXELS // 2)
    x, y = centred[None, :], centred[:, None]
    column = ((256 + wide) * x + (shear - turn) * y) // 256 + right
    row = ((256 + high) * y + (shear + turn) * x) // 256 + down
    basis = _spline_basis()
    bend = _between(knots, BEND * _SUBPIXELS).reshape(-1, 2, KNOTS, KNOTS).swapaxes(0, 1)
    field = basis @ bend @ basis.T // KNOTS_APART**4  # an integer product, so no BLAS
    places = np.stack([column, row]) + field + (CANVAS - 1) * _SUBPIXELS // 2
    return np.asarray(places.clip(0, (CANVAS - 1) * _SUBPIXELS - 1))


def _sample(canvases: NDArray[np.uint8], places: NDArray[np.int32]) -> NDArray[np.int32]:
    """Grey values of `canvases` (n, CANVAS, CANVAS) at `places`, interpolated: (n, SIDE, SIDE)."""
    # first the mean over one image pixel, lest looking at every third canvas pixel drops thin
    # strokes
    padded = np.pad(canvases.astype(np.int32), ((0, 0), (1, 1), (1, 1)))
    rows = sum((padded[:, i : i + CANVAS] for i in range(1, DETAIL)), padded[:, :CANVAS])
    total = sum((rows[:, :, j : j + CANVAS] for j in range(1, DETAIL)), rows[:, :, :CANVAS])
    grey = total // DETAIL**2
    (column, row), (right, down) = np.divmod(places, _SUBPIXELS)
    left, up = _SUBPIXELS - right, _SUBPIXELS - down
    flat, at = (
        grey.ravel(),
        (np.arange(len(canvases))[:, None, None] * CANVAS + row) * CANVAS + column,
    )
    upper = flat[at] * left + flat[at + 1] * right
    lower = flat[at + CANVAS] * left + flat[at + CANVAS + 1] * right
    return np.asarray((upper * up + lower * down) // _SUBPIXELS**2)


def vary(glyphs: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Random variants (n, 1, SIDE, SIDE) of `glyphs` (n, CANVAS, CANVAS).

    Strokes grow, the glyph is stretched, turned, slanted, moved and bent, and noise comes on top.
    """
    n = len(glyphs)
    ends = np.cumsum([1, 6, 2 * KNOTS**2, SIDE**2])
    words = n * -(-int(ends[-1]) // 4)  # of 64 bits, that is four values
    values = (
        np.random.PCG64([SEED, seed]).random_raw(words).astype("<u8").view("<u2").reshape(n, -1)
    )
    thickness, pose, knots, noise, _ = np.split(values.astype(np.int32), ends, axis=1)
    layers = [glyphs]
    for _ in range(THICKER):
        layers.append(_thicken(layers[-1]))
    canvases = np.stack(layers)[thickness[:, 0] * (THICKER + 1) >> 16, np.arange(n)]
    images = _sample(canvases, _places(pose, knots)) + _between(noise, NOISE).reshape(n, SIDE, SIDE)
    return images.clip(0, 255).astype(np.uint8)[:, None]


def render_class(character: str) -> NDArray[np.uint8]:
    """The `EXAMPLES` images of a character, (EXAMPLES, 1, SIDE, SIDE); its faces take turns."""
    faces = faces_by_character()[character]
    glyphs = np.stack([draw(character, face) for face in faces])
    return vary(glyphs[np.arange(EXAMPLES) % len(faces)], ord(character))
