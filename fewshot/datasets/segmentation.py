"""Images with masks: files read when drawn, episodes on one or more classes, rest background."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewshot.datasets.reading.decoding import decoded
from fewshot.datasets.reading.downloads import cached_arrays, data_root
from fewshot.datasets.reading.folders import is_image
from fewshot.datasets.reading.progress import tracked
from fewshot.episodes.distributions import Stacked
from fewshot.episodes.sampling import Index, draw_classes
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.tasks.masks import IGNORED

Pair = tuple[Path, Path]
"""An image and its mask."""
CACHE_BYTES = 2**30
"""How much of a split stays in memory once it is read; more is read from its files again."""


@dataclass(frozen=True)
class SegmentationDataset:
    """The pairs of a split, and which of them show each of its classes.

    Args:
        pairs: images and masks. A mask has one channel, whose values are classes.
        values: the value in the masks of each class of the split, by name.
        members: the pairs that show each class, in the order of `values`.
        image_size: side in pixels that images (bilinearly) and masks (nearest) are resized to,
            whatever their shape.
        ignored: values in the masks that neither train nor count, besides 255.
    """

    pairs: Sequence[Pair]
    values: Mapping[str, int]
    members: Sequence[Index]
    image_size: int
    ignored: Sequence[int] = ()
    _held: dict[int, tuple[Tensor, NDArray[np.uint8]]] = field(
        default_factory=dict, repr=False, compare=False
    )

    def read(self, row: int) -> tuple[Tensor, NDArray[np.uint8]]:
        """The image uint8 (3, size, size) and the mask's values uint8 (size, size) of a pair.

        Raises:
            FewshotError: a file cannot be decoded, or the two differ in size.
        """
        if row not in self._held:
            pair = read_pair(*self.pairs[row], self.image_size)
            if (len(self._held) + 1) * 4 * self.image_size**2 > CACHE_BYTES:
                return pair
            self._held[row] = pair
        return self._held[row]


class SegmentationTasks(Stacked):
    """N-way K-shot segmentation: N classes, K support images and Q queries each, rest background.

    In a support image its own class is annotated alone: pixels of the episode's other classes are
    ignored. The queries' masks have the labels of all N. No image is in an episode twice.

    Args:
        dataset: the split.
        classes: all classes of the benchmark, whose places mark the episodes.
        way: N. shot: K. queries: Q a class.
        flip: mirror half of the images with their masks, left to right.
    """

    def __init__(
        self,
        dataset: SegmentationDataset,
        classes: Sequence[str],
        way: int,
        shot: int,
        queries: int,
        flip: bool = False,
    ) -> None:
        self.dataset, self.way, self.shot, self.queries, self.flip = (
            dataset,
            way,
            shot,
            queries,
            flip,
        )
        self.names = list(dataset.values)
        self.places = [list(classes).index(name) for name in self.names]

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode: support (N*K, ...), query (N*Q, ...), blocks; uint8 images, int64 masks."""
        chosen = draw_classes(rng, len(self.names), self.way)
        used: set[int] = set()
        support: list[tuple[Tensor, Tensor]] = []
        query: list[tuple[Tensor, Tensor]] = []
        for label, number in enumerate(chosen.tolist(), start=1):
            free = [row for row in self.dataset.members[number].tolist() if row not in used]
            rows = rng.choice(free, self.shot + self.queries, replace=False).tolist()
            used.update(rows)
            own, every = self._labels(chosen, label), self._labels(chosen)
            support += [self._example(row, own, rng) for row in rows[: self.shot]]
            query += [self._example(row, every, rng) for row in rows[self.shot :]]
        marks = torch.tensor([self.places[number] for number in chosen.tolist()])
        return Episode(Examples(*_stacked(support)), Examples(*_stacked(query), marks))

    def _example(
        self, row: int, labels: NDArray[np.int64], rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        image, values = self.dataset.read(row)
        mask = torch.from_numpy(labels[values])
        return (
            (image.flip(-1), mask.flip(-1)) if self.flip and rng.random() < 0.5 else (image, mask)
        )

    def _labels(self, chosen: Index, only: int | None = None) -> NDArray[np.int64]:
        """The label of each of the 256 values; labels other than `only` are ignored."""
        table = np.zeros(256, np.int64)
        for label, number in enumerate(chosen.tolist(), start=1):
            table[self.dataset.values[self.names[number]]] = (
                label if only in (None, label) else IGNORED
            )
        table[[*self.dataset.ignored, IGNORED]] = IGNORED
        return table


def _stacked(examples: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, masks = zip(*examples, strict=True)
    return torch.stack(images), torch.stack(masks)


def read_pair(image: Path, mask: Path, image_size: int) -> tuple[Tensor, NDArray[np.uint8]]:
    """An image uint8 (3, size, size) and its mask uint8 (size, size), both resized to a square.

    Raises:
        FewshotError: a file cannot be decoded, or the two differ in size.
    """
    picture, values = decoded(image, 3), _decoded_mask(mask)
    check_sizes(image, picture.size, mask, values.size)
    size = (image_size, image_size)
    pixels = np.asarray(picture.resize(size, Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    resized = np.asarray(values.resize(size, Image.Resampling.NEAREST))
    return torch.from_numpy(np.ascontiguousarray(pixels)), resized


def check_sizes(image: Path, one: tuple[int, int], mask: Path, other: tuple[int, int]) -> None:
    """Check that a mask has the size of its image.

    Raises:
        FewshotError: it has not.
    """
    if one != other:
        raise FewshotError(
            f"{mask} is {other[0]}x{other[1]} px, its image {image} {one[0]}x{one[1]} px; save the"
            " mask at the size of its image"
        )


def _decoded_mask(path: Path) -> Image.Image:
    try:
        if path.stat().st_size == 0:
            raise ValueError("it has 0 bytes")
        with Image.open(path) as mask:
            if mask.mode not in ("L", "P", "1"):
                raise ValueError(
                    f"its mode is {mask.mode}: a mask has one 8-bit channel, whose values are"
                    " classes"
                )
            mask.load()
            return mask.convert("L") if mask.mode == "1" else mask
    except Exception as error:  # Pillow passes on whatever the format's parser raises
        raise FewshotError(f"{path} cannot be decoded ({error}); replace or delete it") from error


def find_pairs(images: Path, masks: Path) -> list[Pair]:
    """Each mask of a folder with the image of the same name (its ending may differ), sorted.

    Others are passed over.

    Raises:
        FewshotError: a folder cannot be read, a mask has no image, or there is no mask.
    """
    found, pictures = _files(masks), {path.stem: path for path in _files(images)}
    if not found:
        raise FewshotError(f"{masks} holds no masks (png, bmp, tiff, ...); correct the folder")
    if missing := [path for path in found if path.stem not in pictures]:
        raise FewshotError(
            f"the mask {missing[0]} has no image {missing[0].stem}.* in {images}; add it or delete"
            " the mask"
        )
    return [(pictures[path.stem], path) for path in found]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if is_image(path.name))
    except OSError as error:
        raise FewshotError(
            f"{folder} is no folder that can be read ({error.strerror}); correct the path"
        ) from error


FORMAT = 1
"""Goes into the cache's name: raise it with every change of how masks are read or counted."""


def counted_pixels(pairs: Sequence[Pair]) -> NDArray[np.int32]:
    """How many pixels of each value each mask has, (n, 256).

    Checked on the way, and cached once all are read.

    Raises:
        FewshotError: a file cannot be decoded, or a mask differs from its image in size.
    """
    states = [path.stat() for pair in pairs for path in pair]
    listing = repr([(str(image), str(mask)) for image, mask in pairs]) + repr(
        [(s.st_size, s.st_mtime_ns) for s in states]
    )
    name = hashlib.sha256(listing.encode()).hexdigest()[:16]

    def count() -> dict[str, NDArray[np.int32]]:
        with ThreadPoolExecutor() as pool:
            counts: Iterable[NDArray[np.int32]] = pool.map(_count, pairs)
            return {"counts": np.stack(list(tracked(counts, "reading masks", len(pairs))))}

    return cached_arrays(data_root(None) / "masks" / f"v{FORMAT}-{name}.npz", count)[
        "counts"
    ].astype(np.int32)


def _count(pair: Pair) -> NDArray[np.int32]:
    image, mask = pair
    values = _decoded_mask(mask)
    try:
        if image.stat().st_size == 0:
            raise ValueError("it has 0 bytes")
        with Image.open(image) as picture:
            turned = picture.getexif().get(0x0112, 1) >= 5  # the orientations that swap the sides
            size = (picture.height, picture.width) if turned else picture.size
    except Exception as error:  # as above
        raise FewshotError(f"{image} cannot be decoded ({error}); replace or delete it") from error
    check_sizes(image, size, mask, values.size)
    return np.bincount(np.asarray(values).ravel(), minlength=256).astype(np.int32)


def members_by_pixels(
    counts: NDArray[np.int32], values: Mapping[str, int], min_pixels: int
) -> list[Index]:
    """The rows whose mask has at least `min_pixels` of each class."""
    return [np.flatnonzero(counts[:, value] >= min_pixels) for value in values.values()]


def check_classes(
    name: str, dataset: SegmentationDataset, way: int, shot: int, queries: int, of: str = ""
) -> None:
    """Check that a split can fill every episode, whichever classes it draws.

    Args:
        name: the split's name, for the message.
        dataset: the split.
        way: N.
        shot: K.
        queries: Q.
        of: what the images must have to count, for the message.

    Raises:
        FewshotError: naming the value, or the first class that is missing or has too few images.
    """
    for argument, value in (("way", way), ("shot", shot), ("queries", queries)):
        if value < 1:
            raise FewshotError(f"{argument} is {value}; set {argument} >= 1")
    if len(dataset.values) < way:
        raise FewshotError(
            f"the {name} split has {len(dataset.values)} classes, too few for way {way}; set way <="
            f" {len(dataset.values)} or add classes"
        )
    needed = way * (shot + queries)
    for class_name, rows in zip(dataset.values, dataset.members, strict=True):
        if len(rows) < needed:
            raise FewshotError(
                f"class {class_name!r} of the {name} split has {len(rows)} images{of}, too few for"
                f" way {way} x (shot {shot} + queries {queries}) = {needed}; lower them or add"
                " images"
            )
