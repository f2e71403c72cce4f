"""A bidirectional LSTM on word ids (Conneau et al. 2017, arXiv:1705.02364).

Shapes: n texts, L token places (padding included), E embedding size, H hidden size of each
direction.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Share, Vocabulary
from fewshot.backbones.text import (
    TextBackbone,
    before_end,
    mask_padding,
    mean_over_time,
    read_inputs,
)
from fewshot.episodes.types import Inputs


class BiLSTM(TextBackbone):
    """BiLSTM: word vectors, an LSTM in both directions, the maximum over time.

    Paper: arXiv:1705.02364.

    Padding never changes the features: each direction begins at the text's own end. LSTM weights
    cannot be vmapped over, so that learners that adapt them run their episodes one by one.

    Args:
        vocab_size: how many word ids there are, padding (0) and unknown (1) included.
        embedding_dim: size E of a word's vector (the paper: 300, pretrained).
        hidden: size H of each direction's state; there are 2 H features (the paper: 2048).
        layers: LSTMs of a direction, one upon the other; each reads both directions of the one
            below.
        pooling: `max` (the paper's best) or `mean` over the words, or `last`: what each direction
            ends with.
        dropout: rate after the word vectors and between the layers, in training.
        **kwargs: `vectors` and `vocabulary` of `TextBackbone`.

    Raises:
        FewshotError: an argument out of range.
    """

    def __init__(
        self,
        vocab_size: Vocabulary,
        embedding_dim: Count = 128,
        hidden: Count = 128,
        layers: Count = 1,
        pooling: Literal["max", "mean", "last"] = "max",
        dropout: Share = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(vocab_size, embedding_dim, dropout, **kwargs)
        self.forwards, self.backwards = (
            nn.ModuleList(
                nn.LSTM(2 * hidden if i else embedding_dim, hidden, batch_first=True)
                for i in range(layers)
            )
            for _ in range(2)
        )
        self.pooling = pooling
        self.out_features = 2 * hidden

    def forward(self, inputs: Inputs) -> Tensor:
        """Features (n, 2 H) of `inputs`: ``tokens`` (n, L) and ``lengths`` (n,), int64.

        0 of a text without words.
        """
        tokens, lengths = read_inputs(inputs)
        states: Tensor = self.embedding(tokens)
        # No packed sequences, which torch.func cannot go through: one LSTM reads the texts as they
        # are, another turned round in place; what either makes of the padding behind a text is
        # masked.
        turned = turned_round(lengths, tokens.shape[-1])
        for forwards, backwards in zip(self.forwards, self.backwards, strict=True):
            states = self.dropout(states)
            onward, back = forwards(states)[0], backwards(_at(states, turned))[0]
            states = torch.cat([onward, _at(back, turned)], -1)
        if self.pooling == "mean":
            return mean_over_time(states, lengths)
        states, words = mask_padding(states, lengths), lengths.clamp(min=1)
        if self.pooling == "last":
            last, first = _at(states, words.unsqueeze(-1) - 1).squeeze(-2), states[..., 0, :]
            hidden = self.out_features // 2
            return torch.cat([last[..., :hidden], first[..., hidden:]], -1)
        past_end = ~before_end(words, tokens.shape[-1])
        return states.masked_fill(past_end.unsqueeze(-1), float("-inf")).amax(-2)


def turned_round(lengths: Tensor, places: int) -> Tensor:
    """For each text the places (n, L) of its words from the last to the first.

    Padding stays where it is.

    >>> turned_round(torch.tensor([3, 2]), 4)
    tensor([[2, 1, 0, 3],
            [1, 0, 2, 3]])
    """
    place, ends = torch.arange(places, device=lengths.device), lengths.unsqueeze(-1)
    return torch.where(place < ends, ends - 1 - place, place)


def _at(states: Tensor, places: Tensor) -> Tensor:
    """The `states` (n, L, D) at `places` (n, P) of each text, (n, P, D)."""
    return states.gather(-2, places.unsqueeze(-1).expand(*places.shape, states.shape[-1]))
