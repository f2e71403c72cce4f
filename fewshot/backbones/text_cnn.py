"""A convolutional network on word ids (Kim 2014, arXiv:1408.5882).

Shapes: n texts, L token places (padding included), E embedding size, F filters of each width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Vocabulary
from fewshot.backbones.text import TextBackbone, mask_padding, max_over_time, read_inputs
from fewshot.episodes.types import Inputs
from fewshot.errors import FewshotError


class TextCNN(TextBackbone):
    """TextCNN: a convolution over words for each kernel width, then the maximum over time.

    Paper: arXiv:1408.5882.

    The convolutions are wide: a text stands between `width` - 1 zero vectors on either side, so
    every window that holds a word of it counts, and it may be shorter than a kernel. The paper's
    dropout is 0.5.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size E of a word's vector (the paper: 300, pretrained).
        filters: filters of each width (the paper: 100).
        widths: the kernels' widths in words (the paper: 3, 4, 5).
        **kwargs: arguments of `TextBackbone`.

    Raises:
        FewshotError: an argument out of range.
    """

    def __init__(
        self,
        vocab_size: Vocabulary,
        embedding_dim: Count = 128,
        filters: Count = 100,
        widths: Sequence[Count] = (3, 4, 5),
        **kwargs: Any,
    ) -> None:
        super().__init__(vocab_size, embedding_dim, **kwargs)
        if not widths:
            raise FewshotError("widths is empty; name at least one kernel width, such as [3, 4, 5]")
        self.convolutions = nn.ModuleList(
            nn.Conv1d(embedding_dim, filters, width, padding=width - 1) for width in widths
        )
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
