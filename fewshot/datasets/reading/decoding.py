"""Image files as squares of bytes."""

import functools
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fewshot.errors import FewshotError

# photographs of 100 megapixels are photographs; those beyond Pillow's limit are errors all the same
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, append=True)
SHOWN = 10  # files in a message
REMEDY = "replace or delete"
FLOATING = "floating point pixels have no known range: save it with 8 or 16 bits"
Channels: TypeAlias = Literal[1, 3]


class Encoded(NamedTuple):
    """An image file's content that lies in another file, and what errors call it."""

    content: bytes
    name: str


class Cropped(NamedTuple):
    """What of an image file is in the box (left, top, right, bottom), in pixels."""

    path: Path
    box: tuple[int, int, int, int]


ImageSource: TypeAlias = Path | Encoded | Cropped | NDArray[np.uint8]
"""What an image can be read from; an array is (H, W, 3) in RGB or (H, W) in grey."""


@functools.cache
def reads_heic() -> bool:
    """Whether HEIC can be read, the photographs of many phones.

    The extra ``heic`` brings what reads it.
    """
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def read_image(source: ImageSource, image_size: int, channels: Channels) -> NDArray[np.uint8]:
    """Decode one image to uint8 (channels, image_size, image_size).

    It is turned upright as its EXIF data says, laid on white where it is transparent, brought to 8
    bits (16-bit grey by its full range), its shorter side resized to `image_size` by an
    anti-aliased bilinear filter and its middle cropped; a `Cropped` box is resized to the square as
    a whole. Of an animation it is the first frame.

    Raises:
        FewshotError: naming the file that cannot be decoded.
    """
    size = (image_size, image_size)
    if isinstance(source, np.ndarray):
        _check_array(source)
        flat = Image.fromarray(source).convert("RGB" if channels == 3 else "L")
        return _bytes(
            flat if flat.size == size else ImageOps.fit(flat, size, Image.Resampling.BILINEAR),
            channels,
        )
    file, box = source if isinstance(source, Cropped) else (source, None)
    flat = decoded(file, channels, 2 * image_size if box is None else None)
    if box is None:
        return _bytes(ImageOps.fit(flat, size, Image.Resampling.BILINEAR), channels)
    left, top, right, bottom = box
    inside = max(left, 0), max(top, 0), min(right, flat.width), min(bottom, flat.height)
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise FewshotError(
            f"{file} cannot be decoded (the box {box} holds none of its pixels); replace or"
            " delete it"
        )
    # `resize` with a box would let the filter look past its edge
    return _bytes(flat.crop(inside).resize(size, Image.Resampling.BILINEAR), channels)


def _check_array(array: NDArray[Any]) -> None:
    """Check that an array is an image, and none of the rows of one."""
    of_bytes = array.dtype in (np.uint8, np.bool_)
    in_colour = array.ndim == 3 and array.shape[-1] in (3, 4)
    in_grey = array.ndim == 2 and array.shape[-1] != 3
    if not (of_bytes and (in_colour or in_grey)):
        raise FewshotError(
            f"an array of {array.dtype} {array.shape} is no image; give bytes (uint8, from 0 to"
            " 255), (H, W, 3) in RGB or (H, W) in grey"
        )


def decoded(file: Path | Encoded, channels: Channels, enough: int | None = None) -> Image.Image:
    """An image file upright, opaque, of 8 bits, in colour or grey; see `read_image`.

    Args:
        file: the file, or its content.
        channels: 3 for RGB, 1 for grey.
        enough: pixels of a side that are enough: large JPEGs then decode faster at 1/2, 1/4 or 1/8.

    Raises:
        FewshotError: naming the file that cannot be decoded.
    """
    reads_heic()  # such a photograph may be called .jpg
    try:
        if not isinstance(file, Path | Encoded):
            raise TypeError("it is no file, no opened image and no array")
        if not (len(file.content) if isinstance(file, Encoded) else file.stat().st_size):
            raise ValueError("it has 0 bytes")
        with Image.open(io.BytesIO(file.content) if isinstance(file, Encoded) else file) as image:
            if enough is not None:
                image.draft(None, (enough, enough))
            return _plain(image, channels)
    except Exception as error:  # Pillow passes on whatever the format's parser raises
        name = file.name if isinstance(file, Encoded) else file
        raise FewshotError(f"{name} cannot be decoded ({error}); {REMEDY} it") from error


def told_at_once(faults: Sequence[str], pieces: str = "files") -> str:
    """What is wrong with several files in one line: the first few, and how many more.

    Args:
        faults: of each file the message of its error.
        pieces: what they are, where not files.
    """
    if len(faults) == 1:
        return faults[0]
    shown = [fault.removesuffix(f"; {REMEDY} it") for fault in faults[:SHOWN]]
    more = [f"and {len(faults) - SHOWN} more"] if len(faults) > SHOWN else []
    return f"{'; '.join(shown + more)}; {REMEDY} these {len(faults)} {pieces}"


def is_decodable(file: Path) -> bool:
    """Whether an image file can be decoded, which takes as long as to decode it."""
    try:
        decoded(file, 3)
    except FewshotError:
        return False
    return True


def unreadable(file: Path | Encoded) -> str | None:
    """Why a file is no image, by its head alone; None where it looks like one."""
    reads_heic()
    try:
        with Image.open(io.BytesIO(file.content) if isinstance(file, Encoded) else file):
            return None
    except FileNotFoundError:
        return "which is not there"
    except UnidentifiedImageError:
        return "which is no image that can be read"
    except Exception as error:  # Pillow passes on whatever the format's parser raises
        return f"which cannot be read ({error})"


def image_array(image: Image.Image, image_size: int, channels: Channels) -> NDArray[np.uint8]:
    """An opened image as uint8 (channels, image_size, image_size); see `read_image`."""
    size = (image_size, image_size)
    return _bytes(ImageOps.fit(_plain(image, channels), size, Image.Resampling.BILINEAR), channels)


def _plain(image: Image.Image, channels: Channels) -> Image.Image:
    """Upright, opaque, of 8 bits."""
    ImageOps.exif_transpose(image, in_place=True)
    return _eight_bits(image).convert("RGB" if channels == 3 else "L")


def _bytes(image: Image.Image, channels: Channels) -> NDArray[np.uint8]:
    return np.asarray(image).reshape(image.height, image.width, channels).transpose(2, 0, 1)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Lay transparent pixels on white, and scale the full range of 16 bits to 8."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its pixels exceed 16 bits: save it with 8 or 16")
        return Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError(FLOATING)
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image
