"""Image files as squares of bytes."""

import io
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fewshot.errors import FewshotError

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


def read_image(source: ImageSource, image_size: int, channels: Channels) -> NDArray[np.uint8]:
    """Decode one image to uint8 (channels, image_size, image_size).

    It is turned upright as its EXIF data says, laid on white where it is transparent, brought to 8 bits (16-bit grey
    by its full range), its shorter side resized to `image_size` by an anti-aliased bilinear filter and its middle
    cropped; a `Cropped` box is resized to the square as a whole. Of an animation it is the first frame.

    Raises:
        FewshotError: naming the file that cannot be decoded.
    """
    size = (image_size, image_size)
    if isinstance(source, np.ndarray):
        flat = Image.fromarray(source).convert("RGB" if channels == 3 else "L")
        return _bytes(flat if flat.size == size else ImageOps.fit(flat, size, Image.Resampling.BILINEAR), channels)
    file, box = source if isinstance(source, Cropped) else (source, None)
    try:
        if not (len(file.content) if isinstance(file, Encoded) else file.stat().st_size):
            raise ValueError("it has 0 bytes")
        with Image.open(io.BytesIO(file.content) if isinstance(file, Encoded) else file) as image:
            if box is None:
                image.draft(None, (2 * image_size, 2 * image_size))  # large JPEGs decode faster at 1/2, 1/4 or 1/8
            else:
                left, top, right, bottom = box
                box = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
                if box[0] >= box[2] or box[1] >= box[3]:
                    raise ValueError(f"the box {left, top, right, bottom} holds none of its pixels")
            ImageOps.exif_transpose(image, in_place=True)
            flat = _eight_bits(image).convert("RGB" if channels == 3 else "L")
    except Exception as error:  # Pillow passes on whatever the format's parser raises
        name = file.name if isinstance(file, Encoded) else file
        raise FewshotError(f"{name} cannot be decoded ({error}); replace or delete it") from error
    if box is not None:
        # `resize` with a box would let the filter look past its edge
        return _bytes(flat.crop(box).resize(size, Image.Resampling.BILINEAR), channels)
    return _bytes(ImageOps.fit(flat, size, Image.Resampling.BILINEAR), channels)


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
        raise ValueError("floating point pixels have no known range: save it with 8 or 16 bits")
    if image.has_transparency_data:
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image
