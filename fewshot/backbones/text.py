"""What networks on word ids share: their inputs, their vectors of words, and masked padding.

Shapes: n texts, L token places (padding included), E embedding size.

Padding never changes the features: the texts' lengths mask it. There are no packed sequences and no
branches on values, so that such networks can be vmapped over texts and weights and differentiated
twice (LSTMs and attention excepted; see there).
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Share, Vocabulary
from fewshot.backbones.base import Backbone, dropout_layer
from fewshot.datasets.reading.word_vectors import read_word_vectors
from fewshot.episodes.types import WIDTHS, Inputs
from fewshot.errors import FewshotError
from fewshot.hyperparameters import weights_follow


class TextBackbone(Backbone):
    """A network that begins with a vector for each word id.

    A subclass builds its own layers after this constructor, so that the vectors are drawn first.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size E of a word's vector.
        dropout: rate at the features in training. Above 0, `torch.vmap` must be told its
            `randomness`.
        vectors: a file of word vectors that the words' begin at; the benchmark's `vectors`. None,
            or where a checkpoint's weights follow: random ones.
        vocabulary: the word of each id, which a file of vectors needs; the benchmark's. Ids past it
            have none.

    Raises:
        FewshotError: an argument out of range, or a file that does not fit.
    """

    begins_at = ("vectors",)
    embedding_range: ClassVar[float | None] = 0.25
    """Vectors start uniform in +- this, as Kim's random ones do; None: standard normal."""

    def __init__(
        self,
        vocab_size: Vocabulary,
        embedding_dim: Count = 128,
        dropout: Share = 0.0,
        vectors: str | None = None,
        vocabulary: list[str] | None = None,
    ) -> None:
        super().__init__()
        self.dropout = dropout_layer(dropout)
        self.embedding = nn.Embedding(vocab_size, embedding_dim)
        if (bound := self.embedding_range) is not None:
            nn.init.uniform_(self.embedding.weight, -bound, bound)
        if vectors is not None and not weights_follow():
            _begin_at(self.embedding.weight, vectors, vocabulary)


def _begin_at(weight: Tensor, vectors: str, vocabulary: Sequence[str] | None) -> None:
    """Write those of a file of `vectors` over the rows (V, E) of their words, in place."""
    if not vocabulary:
        raise FewshotError(
            f"the vectors of {vectors} are those of words, but the benchmark names none; give"
            " vocabulary"
        )
    word_vectors = read_word_vectors(vectors, vocabulary)
    embedding_dim = weight.shape[1]
    if word_vectors and (size := len(next(iter(word_vectors.values())))) != embedding_dim:
        raise FewshotError(
            f"embedding_dim is {embedding_dim}, the vectors of {vectors} have {size}; set it to"
            f" {size}"
        )
    with torch.no_grad():
        for i, word in enumerate(vocabulary):
            if word in word_vectors:
                weight[i] = torch.from_numpy(word_vectors[word])


def read_inputs(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """The ``tokens`` and ``lengths`` of a text benchmark's inputs.

    Raises:
        FewshotError: `inputs` is a tensor, or a dict without them.
    """
    if isinstance(inputs, dict) and {"tokens", "lengths"} <= inputs.keys():
        return inputs["tokens"], inputs["lengths"]
    kind = f"a dict of {sorted(inputs)}" if isinstance(inputs, dict) else "a tensor"
    raise FewshotError(
        f"a text backbone reads a dict of 'tokens' and 'lengths', got {kind}; use a text"
        " benchmark, such as CLINC150, or another backbone"
    )


def before_end(lengths: Tensor, places: int) -> Tensor:
    """Which of so many places (n, L) stand before the end of texts of `lengths` (n,).

    >>> before_end(torch.tensor([0, 2]), 3)
    tensor([[False, False, False],
            [ True,  True, False]])
    """
    return torch.arange(places, device=lengths.device) < lengths.unsqueeze(-1)


def mask_padding(words: Tensor, lengths: Tensor) -> Tensor:
    """`words` (n, L, E) with zeros from each text's length (n,) on."""
    return words * before_end(lengths, words.shape[-2]).unsqueeze(-1)


def mean_over_time(words: Tensor, lengths: Tensor) -> Tensor:
    """The mean (n, E) of each text's `words` (n, L, E); 0 of a text without words."""
    return mask_padding(words, lengths).sum(-2) / lengths.clamp(min=1).unsqueeze(-1)


def max_over_time(maps: Tensor, windows: Tensor) -> Tensor:
    """ReLU of the maximum (n, F) of `maps` (n, F, places) over the first `windows` (n,) of each."""
    past_end = ~before_end(windows, maps.shape[-1])
    # the ReLU behind the maximum: the same function on fewer elements, and 0 where there is no
    # window
    return maps.masked_fill(past_end.unsqueeze(-2), float("-inf")).amax(-1).relu()


def by_width(inputs: Inputs) -> list[tuple[Tensor, Inputs]]:
    """Inputs (n, ...) parted by how long their texts are, each with its places (m,).

    A text's width is its length, rounded up to a multiple of `WIDTHS`, or all that there are
    places for. So what it is padded to does not depend on what other texts there are. Inputs that
    are no texts, or hold something behind a text's end, are one part as they are.
    """
    if not isinstance(inputs, dict) or not {"tokens", "lengths"} <= inputs.keys():
        return [(_all(inputs), inputs)]
    tokens, lengths = read_inputs(inputs)
    if (
        tokens.dim() != 2
        or lengths.dim() != 1
        or tokens[~before_end(lengths, tokens.shape[1])].any()
    ):
        return [(_all(inputs), inputs)]
    rounded = (lengths.clamp(min=1) + WIDTHS - 1) // WIDTHS * WIDTHS
    widths = rounded.clamp(max=tokens.shape[1])
    parts: list[tuple[Tensor, Inputs]] = []
    for width in sorted(set(widths.tolist())):
        places = (widths == width).nonzero()[:, 0]
        part = {name: values[places] for name, values in inputs.items()}
        parts.append((places, {**part, "tokens": part["tokens"][:, :width]}))
    return parts


def _all(inputs: Inputs) -> Tensor:
    first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    return torch.arange(len(first), device=first.device)
