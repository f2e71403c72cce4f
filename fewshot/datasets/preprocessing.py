"""How inputs are made of files and texts: plain facts that benchmarks state and checkpoints hold.

A benchmark states them as a dict of plain values (`DataModule.preprocessing`); `make_preprocessing`
builds from it what reads a user's own files in the way of the training. An *item* is what one
example is made of: an image file (or an opened image), or a text.
"""

import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fewshot.datasets.image_folder import class_images, images_below
from fewshot.datasets.reading.decoding import Encoded, image_array, read_image, told_at_once
from fewshot.datasets.reading.folders import subfolders
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.datasets.reading.text_files import check_lines, no_text, read_lines
from fewshot.datasets.reading.text_tables import is_table, read_table
from fewshot.datasets.reading.words import PADDING, Terms, encode, split_terms
from fewshot.datasets.text_folder import read_own_texts, taken
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError

log = logging.getLogger(__name__)

Item = TypeVar("Item")
ImageItem = str | os.PathLike[str] | Image.Image | NDArray[np.uint8]


class Preprocessing(ABC, Generic[Item]):
    """What makes the inputs of a network of items, and finds the items in folders."""

    kind: ClassVar[str]

    @abstractmethod
    def __call__(self, items: Sequence[Item]) -> Inputs:
        """The inputs (n, ...) of n items.

        Raises:
            FewshotError: one cannot be read; it is named.
        """

    def stored(self, items: Sequence[Item]) -> Inputs:
        """The inputs as a benchmark's datasets hold them, which its DataModule makes ready."""
        return self(items)

    @abstractmethod
    def support(self, folder: Path) -> dict[str, list[Item]]:
        """The items of each class below `folder`, the classes sorted by name."""

    @abstractmethod
    def query(self, source: Any) -> list[Item]:
        """The items that a user's `source` means: a file or a folder, or items themselves."""

    @abstractmethod
    def name(self, item: Item) -> str:
        """What an item is called in a table."""

    @abstractmethod
    def example(self, number: int) -> Inputs:
        """Random inputs (n, ...) of the right shapes."""

    def facts(self) -> dict[str, Any]:
        """What `make_preprocessing` builds this from."""
        values = asdict(self)  # type: ignore[call-overload]  # each subclass is a dataclass
        lists = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
        }
        return {"kind": self.kind, **lists}


@dataclass(frozen=True)
class ImagePreprocessing(Preprocessing[ImageItem]):
    """Image files as float images (n, channels, image_size, image_size) in [0, 1].

    See `load_image_folder`.

    Args:
        image_size: side in pixels; the middle square of an image is resized to it.
        channels: 3 for RGB, 1 for grey.
        invert: the training's ink is bright on dark, that of the files dark on light paper.
        mean: of each channel, taken off; None leaves the images in [0, 1].
        std: of each channel, divided by.
    """

    kind: ClassVar[str] = "image"

    image_size: int
    channels: Literal[1, 3]
    invert: bool = False
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def __post_init__(self) -> None:
        size = self.image_size
        if not isinstance(size, int) or size < 1 or self.channels not in (1, 3):
            raise FewshotError(
                f"image_size {size}, channels {self.channels}: use a positive size and 1 or 3"
                " channels"
            )

    def __call__(self, items: Sequence[ImageItem]) -> Tensor:
        """Images of files, or of opened images."""
        images = as_float(self.stored(items))
        for values, operation in ((self.mean, torch.sub), (self.std, torch.div)):
            if values is not None:
                images = operation(images, torch.tensor(values).view(-1, 1, 1))
        return images

    def stored(self, items: Sequence[ImageItem | Encoded]) -> Tensor:
        """Images uint8 (n, channels, image_size, image_size), not normalised."""
        images, faults = [], []
        for item in items:
            try:
                images.append(self._read(item))
            except FewshotError as error:
                faults.append(str(error))
        if faults:
            raise FewshotError(told_at_once(faults))
        return torch.from_numpy(np.stack(images))

    def _read(self, item: ImageItem | Encoded) -> np.ndarray:
        if isinstance(item, Image.Image):
            image = image_array(item.copy(), self.image_size, self.channels)
        else:
            source: Any = Path(item) if isinstance(item, str | os.PathLike) else item
            image = read_image(source, self.image_size, self.channels)
        return 255 - image if self.invert else image

    def support(self, folder: Path) -> dict[str, list[ImageItem]]:
        """The images of each class folder."""
        images = class_images(folder, subfolders(folder))
        return {name: list(files) for name, files in images.items()}

    def query(self, source: Any) -> list[ImageItem]:
        """The images in and below a folder, one file, or a list of files and opened images."""
        if isinstance(source, Image.Image):
            return [source]
        if not isinstance(source, str | os.PathLike):
            return list(source)
        path = Path(source)
        return list(images_below(path)) if path.is_dir() else [path]

    def example(self, number: int) -> Tensor:
        """Noise."""
        return torch.rand(number, self.channels, self.image_size, self.image_size)

    def name(self, item: ImageItem) -> str:
        """The file's path."""
        return (
            getattr(item, "filename", "") or "image" if isinstance(item, Image.Image) else str(item)
        )


@dataclass(frozen=True)
class TextPreprocessing(Preprocessing[str]):
    """Texts as ``tokens`` (n, L), ``lengths`` (n,), int64: ids of a vocabulary or a tokenizer.

    Args:
        terms: what has an id: ``words``, or the character ``ngrams`` of the words.
        max_length: words of a text that are kept; of a tokenizer, pieces.
        vocabulary: the term of each id; empty with a tokenizer.
        unknown_ids: ids that unknown terms are spread over by their hash; 0: one id for all.
        tokenizer: a language model's name or folder, whose tokenizer makes the ids; None:
            `vocabulary` does.
        tokenizer_json: that tokenizer as the text of its ``tokenizer.json``, so that its files need
            not be found again.
    """

    kind: ClassVar[str] = "text"

    terms: Terms
    max_length: int
    vocabulary: Sequence[str]
    unknown_ids: int = 0
    tokenizer: str | None = None
    tokenizer_json: str | None = None

    @cached_property
    def _pretrained(self) -> PretrainedTokenizer | None:
        return (
            None
            if self.tokenizer is None
            else PretrainedTokenizer(self.tokenizer, self.tokenizer_json)
        )

    def __call__(self, items: Sequence[str]) -> dict[str, Tensor]:
        """The ids of texts."""
        for item in items:
            if why := no_text(item):
                raise FewshotError(f"the text {item!r:.80} {why}; leave it out")
        pretrained = self._pretrained
        texts = [
            (
                pretrained.split(text, self.max_length)
                if pretrained
                else split_terms(text, self.terms, self.max_length)
            )
            for text in items
        ]
        for item, text in zip(items, texts, strict=True):
            if not text:
                raise FewshotError(f"the text {item!r:.80} has no word; leave it out")
        return encode(
            texts, pretrained.vocabulary if pretrained else self.vocabulary, self.unknown_ids
        )

    def support(self, folder: Path) -> dict[str, list[str]]:
        """The texts of ``<class>.txt``, of ``<class>/*.txt``, or of a table; see `OwnTexts`."""
        found = read_own_texts(folder)
        if found.needed:
            raise FewshotError(f"{folder}: {found.notes[0]}; name them so in the first line")
        check_lines(found.every_fault())
        for note in found.notes:
            log.warning("%s: %s", folder, note)
        return {name: list(texts) for name, texts in found.texts.items()}

    def query(self, source: Any) -> list[str]:
        """The lines or the table of a file (a `Path`), one text (a str), or a list of texts."""
        if isinstance(source, str):
            return [source]
        if not isinstance(source, os.PathLike):
            return list(source)
        return [text for text, _ in self.labelled(Path(source))]

    def labelled(self, source: Path) -> list[tuple[str, str]]:
        """The texts of a file of lines, a table or a folder of classes, and the class of each.

        Empty where the source does not say. Rows of a table that cannot be read are told.
        """
        if source.is_dir():
            return [(text, name) for name, of in self.support(source).items() for text in of]
        if is_table(source):
            table = read_table(source, labelled=False)
            log.warning("%s: %s", source, taken(table))
            for fault in (fault for of in table.faults.values() for fault in of):
                log.warning("left out: %s", fault)
            return table.every
        if source.suffix.lower() == ".json":
            raise FewshotError(f"{source} is one piece of JSON; give an object a line, as .jsonl")
        if not (lines := [(line.text, "") for line in read_lines(source)]):
            raise FewshotError(f"{source} holds no text; give a file with a text a line")
        return lines

    def example(self, number: int) -> dict[str, Tensor]:
        """Random ids; lengths differ, and the longest is another one for each `number`."""
        size = len(self._pretrained.vocabulary if self._pretrained else self.vocabulary)
        lengths = torch.arange(number) + 2
        tokens = torch.randint(2, size, (number, number + 1))
        tokens[torch.arange(number + 1) >= lengths[:, None]] = PADDING
        return {"tokens": tokens, "lengths": lengths}

    def name(self, item: str) -> str:
        """The text."""
        return item


def as_float(images: Inputs) -> Tensor:
    """uint8 images as float32 in [0, 1]."""
    assert isinstance(images, Tensor)
    return images.float().mul_(1 / 255)


KINDS: dict[str, type[Preprocessing[Any]]] = {
    cls.kind: cls for cls in (ImagePreprocessing, TextPreprocessing)
}


def make_preprocessing(facts: Mapping[str, Any]) -> Preprocessing[Any]:
    """The preprocessing of `facts`, such as ``{"kind": "image", "image_size": 84, "channels": 3}``.

    Raises:
        FewshotError: the kind is unknown, or its facts are not the kind's.
    """
    if not isinstance(facts, Mapping):
        raise FewshotError(f"preprocessing is {facts!r:.80}; give a DataModule's `preprocessing`")
    arguments = dict(facts)
    kind = arguments.pop("kind", None)
    if kind not in KINDS:
        raise FewshotError(
            f"preprocessing of kind {kind!r} is unknown; use one of {', '.join(sorted(KINDS))}"
        )
    try:
        return KINDS[kind](**arguments)
    except TypeError as error:
        raise FewshotError(
            f"the facts {sorted(arguments)} do not fit the kind {kind!r} ({error})"
        ) from error
