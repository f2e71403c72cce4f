"""A small transformer encoder on word ids (Vaswani et al. 2017, arXiv:1706.03762).

Shapes: n texts, L token places (padding included), E embedding size.
"""

import math

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Share, Vocabulary
from fewshot.backbones.text import TextBackbone, before_end, mean_over_time, read_inputs
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError


class TextTransformer(TextBackbone):
    """TextTransformer: word vectors with sinusoidal positions, an encoder, the words' mean.

    Paper: arXiv:1706.03762.

    Padding never changes the features. The layers normalise before they attend (arXiv:2002.04745),
    which trains without a warm-up. Second derivatives need attention in plain operations, which the
    learners' engine sees to.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size E of a word's vector and number of features, even (the paper: 512).
        layers: encoder layers (the paper: 6).
        heads: attention heads; they divide `embedding_dim` (the paper: 8).
        feedforward: width of the layer inside each encoder layer (the paper: 2048).
        dropout: rate after the word vectors and in each layer, in training (the paper: 0.1).
            `torch.vmap` must be told its `randomness`, at 0 too.

    Raises:
        FewshotError: an argument out of range.
    """

    embedding_range = None
    """As the paper has them, scaled up to the size of the positions."""

    def __init__(
        self,
        vocab_size: Vocabulary,
        embedding_dim: Count = 128,
        layers: Count = 2,
        heads: Count = 4,
        feedforward: Count = 256,
        dropout: Share = 0.1,
    ) -> None:
        super().__init__(vocab_size, embedding_dim, dropout)
        if embedding_dim % 2 or embedding_dim % heads:
            raise FewshotError(
                f"embedding_dim is {embedding_dim}; set it to an even multiple of the heads, which"
                f" are {heads}"
            )
        # nn.TransformerEncoder would copy one layer, so that all began alike
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                embedding_dim, heads, feedforward, dropout, batch_first=True, norm_first=True
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(embedding_dim)
        self.out_features = embedding_dim

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, E) of `inputs`: ``tokens`` (n, L) and ``lengths`` (n,), int64."""
        tokens, lengths = read_inputs(inputs)
        words: Tensor = self.embedding(tokens)
        words = self.dropout(words + sinusoids(words))
        # A text without words attends to one place of padding, because a softmax over nothing is
        # not a number.
        past_end = ~before_end(lengths.clamp(min=1), tokens.shape[-1])
        for layer in self.layers:
            words = layer(words, src_key_padding_mask=past_end)
        return mean_over_time(self.norm(words), lengths)


def sinusoids(words: Tensor) -> Tensor:
    """Position encodings (L, E) for `words` (n, L, E).

    Sine and cosine of place / 10000^(2i / E), alternating.
    """
    places, size = words.shape[-2:]
    rates = torch.exp(
        torch.arange(0, size, 2, device=words.device, dtype=words.dtype)
        * (-math.log(10_000) / size)
    )
    angles = torch.arange(places, device=words.device, dtype=words.dtype).unsqueeze(-1) * rates
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-2)
