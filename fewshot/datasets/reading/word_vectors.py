"""Word vectors from a text file, as GloVe, fastText and word2vec write them.

A line holds a word and its values, separated by single spaces; the first line may hold the two
counts alone.
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import FewshotError


def read_word_vectors(path: str | Path, words: Collection[str]) -> dict[str, NDArray[np.float32]]:
    """The vector of each of `words` that the file has; where it has one twice, the first.

    Raises:
        FewshotError: the file cannot be read, or a line of it is wrong; the line is named.
    """
    encoded, vectors, size = {word.encode() for word in words}, dict[str, NDArray[np.float32]](), 0
    for number, word, values in _lines(Path(path)):
        if word not in encoded or word.decode() in vectors:
            continue
        try:
            vector = np.array(values.split(b" "), np.float32)
        except ValueError as error:
            raise FewshotError(
                f"{path}, line {number}: a value is no number ({error}); mend the line"
            ) from error
        if not np.isfinite(vector).all():
            raise FewshotError(
                f"{path}, line {number}: the word {word.decode()!r} has a value that is not finite;"
                " mend the line"
            )
        size = size or len(vector)
        if len(vector) != size:
            raise FewshotError(
                f"{path}, line {number}: the word {word.decode()!r} has {len(vector)} values,"
                f" earlier ones have {size}; mend the line"
            )
        vectors[word.decode()] = vector
    return vectors


def known_words(path: str | Path, words: Collection[str]) -> set[str]:
    """Those of `words` that the file has a vector for."""
    encoded = {word.encode() for word in words}
    return {word.decode() for _, word, _ in _lines(Path(path)) if word in encoded}


def _lines(path: Path) -> Iterator[tuple[int, bytes, bytes]]:
    """The number, the word and the values of each line with values.

    The counts of word2vec are none.
    """
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                word, _, values = line.rstrip().partition(b" ")
                if number == 1 and word.isdigit() and values.isdigit():
                    continue
                if not values:
                    raise FewshotError(
                        f"{path}, line {number}: {line[:40]!r} is no word with its values; mend it"
                    )
                yield number, word, values
    except OSError as error:
        raise FewshotError(
            f"the word vectors {path} cannot be read ({error}); give a GloVe text file"
        ) from error
