"""Networks on word ids: a convolutional one and a bag of words.

Shapes: n texts, L token places (padding included), E embedding size, F filters of each width.

Padding never changes the features: the texts' lengths mask it. There are no packed sequences and no
branches on values, so both networks can be vmapped over texts and weights and differentiated twice.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone, dropout_layer
from fewshot.datasets.reading.word_vectors import read_word_vectors
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError, check_at_least
from fewshot.hyperparameters import weights_follow

EMBEDDING_RANGE = 0.25  # word vectors start uniform in +-0.25, as Kim's random ones do


class TextCNN(Backbone):
    """TextCNN: a convolution over words for each kernel width, then the maximum over time.

    Paper: arXiv:1408.5882.

    The convolutions are wide: a text stands between `width` - 1 zero vectors on either side, so
    every window that holds a word of it counts, and it may be shorter than a kernel.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size of a word's vector (the paper: 300, pretrained).
        filters: filters of each width (the paper: 100).
        widths: the kernels' widths in words (the paper: 3, 4, 5).
        dropout: rate at the features in training (the paper: 0.5). Above 0, `torch.vmap` must be
            told its `randomness`.
        vectors: a file of word vectors that the words' begin at; the benchmark's `vectors`. None:
            random ones.
        vocabulary: the word of each id, which a file of vectors needs; the benchmark's.

    Raises:
        FewshotError: an argument out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 128,
        filters: int = 100,
        widths: Sequence[int] = (3, 4, 5),
        dropout: float = 0.0,
        vectors: str | None = None,
        vocabulary: list[str] | None = None,
    ) -> None:
        super().__init__()
        check_at_least(
            1, filters=filters, **{f"widths[{i}]": width for i, width in enumerate(widths)}
        )
        if not widths:
            raise FewshotError("widths is empty; name at least one kernel width, such as [3, 4, 5]")
        self.embedding = word_vectors(vocab_size, embedding_dim, vectors, vocabulary)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(embedding_dim, filters, width, padding=width - 1) for width in widths
        )
        self.dropout = dropout_layer(dropout)
        self.widths = tuple(widths)
        self.out_features = filters * len(widths)

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, F * widths) of `inputs`: ``tokens`` (n, L) and ``lengths`` (n,), int64."""
        tokens, lengths = read_inputs(inputs)
        words = mask_padding(self.embedding(tokens), lengths).transpose(-1, -2)  # n, E, L
        maxima = [
            max_over_time(convolution(words), lengths + width - 1)
            for width, convolution in zip(self.widths, self.convolutions, strict=True)
        ]
        features: Tensor = self.dropout(torch.cat(maxima, dim=-1))
        return features


class BagOfWords(Backbone):
    """BagOfWords: the mean of the words' learned vectors, then an MLP, without order.

    Paper: Iyyer et al. 2015.

    The order of the words does not matter. Source: "Deep Unordered Composition Rivals Syntactic
    Methods for Text Classification", ACL 2015.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size of a word's vector (the paper: 300).
        hidden_features: sizes of the linear layers after the mean, a ReLU behind each; none by
            default (the paper: three of 300).
        dropout: rate at the features in training. Above 0, `torch.vmap` must be told its
            `randomness`.
        vectors: a file of word vectors that the words' begin at; the benchmark's `vectors`. None:
            random ones.
        vocabulary: the word of each id, which a file of vectors needs; the benchmark's.

    Raises:
        FewshotError: an argument out of range.
    """

    def __init__(
        self,
        vocab_size: int,
        embedding_dim: int = 128,
        hidden_features: Sequence[int] = (),
        dropout: float = 0.0,
        vectors: str | None = None,
        vocabulary: list[str] | None = None,
    ) -> None:
        super().__init__()
        check_at_least(
            1, **{f"hidden_features[{i}]": size for i, size in enumerate(hidden_features)}
        )
        self.embedding = word_vectors(vocab_size, embedding_dim, vectors, vocabulary)
        sizes = [embedding_dim, *hidden_features]
        self.layers = nn.Sequential()
        for size, next_size in pairwise(sizes):
            self.layers.extend([nn.Linear(size, next_size), nn.ReLU()])
        self.dropout = dropout_layer(dropout)
        self.out_features = sizes[-1]

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of `inputs`: ``tokens`` (n, L) and ``lengths`` (n,), int64."""
        tokens, lengths = read_inputs(inputs)
        mean = mask_padding(self.embedding(tokens), lengths).sum(-2) / lengths.clamp(
            min=1
        ).unsqueeze(-1)
        features: Tensor = self.dropout(self.layers(mean))
        return features


def mask_padding(words: Tensor, lengths: Tensor) -> Tensor:
    """`words` (n, L, E) with zeros from each text's length (n,) on."""
    return words * (
        torch.arange(words.shape[-2], device=words.device) < lengths.unsqueeze(-1)
    ).unsqueeze(-1)


def max_over_time(maps: Tensor, windows: Tensor) -> Tensor:
    """ReLU of the maximum (n, F) of `maps` (n, F, places) over the first `windows` (n,) of each."""
    past_end = torch.arange(maps.shape[-1], device=maps.device) >= windows.unsqueeze(-1)
    # the ReLU behind the maximum: the same function on fewer elements, and 0 where there is no
    # window
    return maps.masked_fill(past_end.unsqueeze(-2), float("-inf")).amax(-1).relu()


def read_inputs(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The ``tokens`` and ``lengths`` of a text benchmark's inputs.

    Raises:
        FewshotError: `inputs` is a tensor, or a dict without them.
    """
    if isinstance(inputs, dict) and {"tokens", "lengths"} <= inputs.keys():
        return inputs["tokens"], inputs["lengths"]
    found = f"a dict of {sorted(inputs)}" if isinstance(inputs, dict) else "a tensor"
    raise FewshotError(
        f"a text backbone reads a dict of 'tokens' and 'lengths', got {found}; use a text"
        " benchmark, such as CLINC150, or another backbone"
    )


def word_vectors(
    vocab_size: int,
    embedding_dim: int,
    vectors: str | None = None,
    vocabulary: Sequence[str] | None = None,
) -> nn.Embedding:
    """A vector for each word id, padding (0) and unknown (1) included, to be learned.

    Args:
        vocab_size: how many ids there are.
        embedding_dim: size of a vector.
        vectors: a file of word vectors that those of its words begin at; None, or where a
            checkpoint's weights follow: random ones.
        vocabulary: the word of each id; ids past it have none.

    Raises:
        FewshotError: an argument out of range, or a file that does not fit.
    """
    check_at_least(2, vocab_size=vocab_size)  # padding and unknown
    check_at_least(1, embedding_dim=embedding_dim)
    embedding = nn.Embedding(vocab_size, embedding_dim)
    nn.init.uniform_(embedding.weight, -EMBEDDING_RANGE, EMBEDDING_RANGE)
    if vectors is None or weights_follow():
        return embedding
    if not vocabulary:
        raise FewshotError(
            f"the vectors of {vectors} are those of words, but the benchmark names none; give"
            " vocabulary"
        )
    found = read_word_vectors(vectors, vocabulary)
    if found and (size := len(next(iter(found.values())))) != embedding_dim:
        raise FewshotError(
            f"embedding_dim is {embedding_dim}, the vectors of {vectors} have {size}; set it to"
            f" {size}"
        )
    with torch.no_grad():
        for i, word in enumerate(vocabulary):
            if word in found:
                embedding.weight[i] = torch.from_numpy(found[word])
    return embedding
