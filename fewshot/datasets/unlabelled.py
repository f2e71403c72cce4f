"""Your own images or texts without labels: all that lies below a folder, or the lines of a file."""

from collections import Counter
from pathlib import Path

import numpy as np

from fewshot.datasets.image_folder import tell_passed_over
from fewshot.datasets.packed_images import pack_images
from fewshot.datasets.reading.decoding import Channels, told_at_once
from fewshot.datasets.reading.folders import image_files
from fewshot.datasets.reading.text_files import check_lines, no_text, read_lines, told
from fewshot.datasets.text_folder import TextForm, holds_texts, read_own_texts
from fewshot.episodes.class_dataset import LazyInputs
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError


def is_text(root: Path) -> bool:
    """Whether a path holds texts rather than images.

    Raises:
        FewshotError: there is nothing.
    """
    if not root.exists():
        raise FewshotError(f"unlabelled is {root}, which does not exist; give a folder or a file")
    return holds_texts(root)


def read_images(
    root: Path, image_size: int, channels: Channels, skip_broken: bool = False
) -> Inputs | LazyInputs:
    """All images below a folder, whatever its folders are called, uint8 (n, C, H, W).

    They are decoded once, into a packed store in the cache folder.

    Raises:
        FewshotError: there is none, or one cannot be decoded.
    """
    others: Counter[str] = Counter()
    files = image_files(root, others)
    tell_passed_over(root, others)
    images, broken = pack_images(root, {"": files}, "unlabelled", image_size, channels)
    if broken and not skip_broken:
        raise FewshotError(told_at_once(list(broken.values())))
    return images.inputs


def read_texts(root: Path) -> list[str]:
    """The texts of a file of lines, of a table, or of a folder of either; each once, in order.

    Raises:
        FewshotError: there is none, or a line cannot be read.
    """
    if root.is_file() and root.suffix.lower() == ".txt":
        lines = read_lines(root)
        check_lines([told(root, line, why) for line in lines if (why := no_text(line.text, True))])
        found = [line.text for line in lines]
    else:
        texts = read_own_texts(root, TextForm(words=True))
        check_lines(texts.every_fault())
        found = [text for of in texts.texts.values() for text in of]
    if not found:
        raise FewshotError(f"{root} holds no texts; give a text a line")
    return list(dict.fromkeys(found))


def split_examples(number: int, fractions: tuple[float, float], least: int) -> list[np.ndarray]:
    """Places of the examples that train, validate and test, drawn by the seed 0.

    Args:
        number: examples.
        fractions: shares that validate and test.
        least: examples that each part must have.

    Raises:
        FewshotError: there are too few.
    """
    sizes = [max(least, round(number * share)) for share in fractions]
    if number - sum(sizes) < least:
        raise FewshotError(
            f"there are {number} examples without labels, too few for tasks of {least} in each of"
            f" training, validation and test; give {3 * least} or more, or lower train_way"
        )
    order = np.random.default_rng(0).permutation(number)
    parts = np.split(order, np.cumsum([number - sum(sizes), sizes[0]]))
    return [np.sort(part) for part in parts]
