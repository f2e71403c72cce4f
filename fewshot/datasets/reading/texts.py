"""Texts by class as tensors of ids: what the text benchmarks have in common.

A *term* is what gets an id: a word, a character n-gram, or a piece of a pre-trained language
model's tokenizer.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeVar, get_args

import numpy as np

from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.datasets.reading.word_vectors import known_words
from fewshot.datasets.reading.words import (
    Terms,
    build_vocabulary,
    character_ngrams,
    document_frequencies,
    encode,
    split_terms,
)
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError, check_at_least, check_choice

Texts: TypeAlias = Mapping[str, Sequence[Sequence[str]]]
"""The texts of each class, each as the list of its terms."""

Text = TypeVar("Text")


class TextOptions(NamedTuple):
    """How texts become ids.

    Args:
        terms: what gets an id: ``words``, or the character ``ngrams`` of the words.
        max_length: words kept of a text; pieces where there is a tokenizer.
        min_count: how often a term must occur in training to get an id of its own.
        unknown_ids: ids that the unknown terms are spread over by their hash; 0: one id for all.
        tokenizer: name or folder of a pre-trained language model, whose tokenizer's ids are used;
            None: those of `terms`.
        vectors: a file of word vectors, whose words get ids too, wherever they occur.
    """

    terms: Terms = "words"
    max_length: int = 32
    min_count: int = 1
    unknown_ids: int = 0
    tokenizer: str | None = None
    vectors: str | None = None

    def check(self) -> None:
        """Check the options.

        Raises:
            FewshotError: one is out of range, or two contradict each other.
        """
        check_at_least(1, max_length=self.max_length, min_count=self.min_count)
        check_at_least(0, unknown_ids=self.unknown_ids)
        check_choice("terms", self.terms, get_args(Terms))
        if self.tokenizer is not None and (self.terms, self.min_count, self.unknown_ids) != (
            "words",
            1,
            0,
        ):
            raise FewshotError(
                f"the tokenizer {self.tokenizer} has a vocabulary of its own; leave out terms,"
                " min_count and unknown_ids"
            )
        if self.vectors is not None and (self.terms != "words" or self.tokenizer is not None):
            raise FewshotError(
                f"the vectors of {self.vectors} are those of words; leave out terms and tokenizer"
            )


class TextData(NamedTuple):
    """Texts as tensors of ids: ``train``, ``val`` and ``test``, and what the ids mean.

    `vocabulary` is the term of each id (0: padding, 1: unknown; or a tokenizer's own);
    `document_frequencies` in how many training texts each id of the inputs occurs; `documents` how
    many training texts there are.
    """

    datasets: dict[str, ClassDataset]
    vocabulary: tuple[str, ...]
    document_frequencies: list[int]
    documents: int


class TermSplitter:
    """Splits texts into terms, as the options say.

    Raises:
        FewshotError: the options are wrong, or the tokenizer cannot be loaded.
    """

    def __init__(self, options: TextOptions) -> None:
        options.check()
        self.options = options
        self.pretrained = (
            None if options.tokenizer is None else PretrainedTokenizer(options.tokenizer)
        )

    def split(self, text: str) -> list[str]:
        """The terms of `text`, from its beginning, as many as `max_length` allows."""
        if self.pretrained:
            return self.pretrained.split(text, self.options.max_length)
        return split_terms(text, self.options.terms, self.options.max_length)

    def split_parts(
        self, parts: Mapping[str, Mapping[str, Sequence[str]]]
    ) -> dict[str, dict[str, list[list[str]]]]:
        """The terms of each text of each class of each part."""
        return {
            part: {name: [self.split(text) for text in texts] for name, texts in classes.items()}
            for part, classes in parts.items()
        }

    def split_words(self, words: Sequence[str]) -> list[list[str]]:
        """The terms of each of the `words` of a text that is split into words already.

        Some may have none.
        """
        if self.pretrained:
            return self.pretrained.split_words(words)
        lower = [word.strip().lower() for word in words]
        if self.options.terms == "ngrams":
            return [character_ngrams([word]) if word else [] for word in lower]
        return [[word] if word else [] for word in lower]


def encode_texts(
    parts: Mapping[str, Texts],
    splitter: TermSplitter,
    known: Sequence[str] = (),
    counted: Sequence[Sequence[str]] | None = None,
) -> TextData:
    """The texts of each part as datasets of ``tokens`` (n, L) and ``lengths`` (n,), int64.

    The vocabulary comes from the part ``train`` alone, so that what is met at test time is as new
    as it would be in use; a file of word vectors adds those of its words that occur anywhere.

    Args:
        parts: the texts of train, val and test by class.
        splitter: what has split them.
        known: terms that get an id whether they occur or not.
        counted: the texts that the vocabulary is of; None means those of train.
    """
    options, pretrained = splitter.options, splitter.pretrained
    flat = {
        part: [text for texts in classes.values() for text in texts]
        for part, classes in parts.items()
    }
    if pretrained:
        vocabulary = pretrained.vocabulary
    else:
        vocabulary = build_vocabulary(
            flat["train"] if counted is None else counted, options.min_count
        )
        vocabulary += tuple(term for term in known if term not in vocabulary)
    if options.vectors is not None:
        everywhere = {term for texts in flat.values() for text in texts for term in text}
        vocabulary += tuple(sorted(known_words(options.vectors, everywhere - set(vocabulary))))
    datasets = {
        part: ClassDataset(
            encode(flat[part], vocabulary, options.unknown_ids),
            np.array([len(texts) for texts in classes.values()], np.int64),
            tuple(classes),
        )
        for part, classes in parts.items()
    }
    frequencies = document_frequencies(flat["train"], vocabulary) + [0] * options.unknown_ids
    return TextData(datasets, vocabulary, frequencies, len(flat["train"]))


def split_groups(
    groups: Sequence[Sequence[str]], sizes: Mapping[str, int], seed: int
) -> dict[str, list[str]]:
    """Each part's classes: the permuted groups dealt out by the order and number of `sizes`."""
    order = iter(np.random.default_rng(seed).permutation(len(groups)).tolist())
    return {
        part: [name for _ in range(size) for name in groups[next(order)]]
        for part, size in sizes.items()
    }


def draw_texts(
    classes: Mapping[str, Sequence[Text]], shot: int, fold: int
) -> dict[str, list[Text]]:
    """`shot` different texts per class, drawn by ``numpy.random.default_rng(fold)``.

    Classes are drawn one by one.

    Raises:
        FewshotError: a class has too few.
    """
    rng = np.random.default_rng(fold)
    drawn = {}
    for name, texts in classes.items():
        if len(texts) < shot:
            raise FewshotError(
                f"class {name!r} has {len(texts)} training texts, too few for shot {shot}; lower"
                " shot"
            )
        drawn[name] = [texts[i] for i in rng.choice(len(texts), shot, replace=False)]
    return drawn


def with_inputs(dataset: ClassDataset, **inputs: Any) -> ClassDataset:
    """The dataset with further tensors (n, ...) among its inputs."""
    assert isinstance(dataset.inputs, dict)
    return ClassDataset({**dataset.inputs, **inputs}, dataset.counts, dataset.classes)
