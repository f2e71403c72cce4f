"""Texts as ids: words or their character n-grams, a vocabulary of them, and tensors of its ids.

A *term* is what gets an id: a word, or a character n-gram. A text is the list of its terms.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

Terms: TypeAlias = Literal["words", "ngrams"]

PADDING, UNKNOWN = 0, 1
# no text holds these: "<" is no part of a word, n-grams are shorter
SPECIAL_TERMS = ("<padding>", "<unknown>")
WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")
NGRAM_SIZES = (3, 4, 5)  # fastText's 3 to 6, as far as 7500 short texts have them often enough


def tokenize(text: str) -> list[str]:
    """The lower-case words of `text`: runs of letters and digits, with inner apostrophes.

    >>> tokenize("What's my 401k worth, Anna?")
    ["what's", 'my', '401k', 'worth', 'anna']
    """
    return WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))


def character_ngrams(words: Sequence[str]) -> list[str]:
    """The character n-grams of every word, its ends marked.

    Bojanowski et al. 2017 (arXiv:1607.04606).

    A word never seen shares some with the words that it resembles.

    >>> character_ngrams(["a", "bus"])
    ['<a>', '<bu', 'bus', 'us>', '<bus', 'bus>', '<bus>']
    """
    marked = [f"<{word}>" for word in words]
    return [
        word[i : i + n] for word in marked for n in NGRAM_SIZES for i in range(len(word) - n + 1)
    ]


def split_terms(text: str, terms: Terms, max_words: int) -> list[str]:
    """The terms of the first `max_words` words of `text`."""
    words = tokenize(text)[:max_words]
    return words if terms == "words" else character_ngrams(words)


def build_vocabulary(texts: Iterable[Sequence[str]], min_count: int = 1) -> tuple[str, ...]:
    """Each id's term: special ones, then those of `texts`, most frequent first, ties by name."""
    counts = Counter(term for text in texts for term in text)
    terms = sorted((-count, term) for term, count in counts.items() if count >= min_count)
    return (*SPECIAL_TERMS, *(term for _, term in terms))


def document_frequencies(texts: Iterable[Sequence[str]], vocabulary: Sequence[str]) -> list[int]:
    """In how many of `texts` each term of the vocabulary occurs; 0 for the special ones."""
    counts = Counter(term for text in texts for term in set(text))
    return [counts[term] for term in vocabulary]


def encode(
    texts: Sequence[Sequence[str]], vocabulary: Sequence[str], unknown_ids: int = 0
) -> dict[str, Tensor]:
    """``tokens`` (n, L), padded with 0 to the longest of `texts`, and ``lengths`` (n,), both int64.

    Args:
        texts: the terms of each text.
        vocabulary: the term of each id.
        unknown_ids: ids past the vocabulary's that unknown terms are spread over, the same term
            always to the same id; 0 gives all of them the one id `UNKNOWN`.
    """
    ids = {term: i for i, term in enumerate(vocabulary)}
    lengths = np.array([len(text) for text in texts], np.int64)
    tokens = np.full((len(texts), lengths.max()), PADDING, np.int64)
    for row, text in enumerate(texts):
        tokens[row, : len(text)] = [
            ids[term] if term in ids else _unknown_id(term, len(ids), unknown_ids) for term in text
        ]
    return {"tokens": torch.from_numpy(tokens), "lengths": torch.from_numpy(lengths)}


def _unknown_id(term: str, first: int, unknown_ids: int) -> int:
    return first + zlib.crc32(term.encode()) % unknown_ids if unknown_ids else UNKNOWN
