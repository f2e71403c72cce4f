"""A bag of words: the mean of the words' vectors, then an MLP (Iyyer et al. 2015).

Shapes: n texts, L token places (padding included).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from fewshot.arguments import Count, Vocabulary
from fewshot.backbones.text import TextBackbone, mean_over_time, read_inputs
from fewshot.episodes.types import Inputs


class BagOfWords(TextBackbone):
    """BagOfWords: the mean of the words' learned vectors, then an MLP, without order.

    Paper: Iyyer et al. 2015.

    The order of the words does not matter. Source: "Deep Unordered Composition Rivals Syntactic
    Methods for Text Classification", ACL 2015.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size of a word's vector (the paper: 300).
        hidden_features: sizes of the linear layers after the mean, a ReLU behind each; none by
            default (the paper: three of 300).
        **kwargs: arguments of `TextBackbone`.

    Raises:
        FewshotError: an argument out of range.
    """

    def __init__(
        self,
        vocab_size: Vocabulary,
        embedding_dim: Count = 128,
        hidden_features: Sequence[Count] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(vocab_size, embedding_dim, **kwargs)
        sizes = [embedding_dim, *hidden_features]
        self.layers = nn.Sequential()
        for size, next_size in pairwise(sizes):
            self.layers.extend([nn.Linear(size, next_size), nn.ReLU()])
        self.out_features = sizes[-1]

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, out_features) of `inputs`: ``tokens`` (n, L) and ``lengths`` (n,), int64."""
        tokens, lengths = read_inputs(inputs)
        features: Tensor = self.dropout(
            self.layers(mean_over_time(self.embedding(tokens), lengths))
        )
        return features
