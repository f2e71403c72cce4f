"""Layers over a sequence that look back only (Mishra et al., arXiv:1707.03141).

Shapes: T items of a sequence, S of them past, C channels, n items that may come next.
"""

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalLayer(nn.Module):
    """A layer over a sequence in which no item sees a later one."""

    @abstractmethod
    def forward(self, sequence: Tensor) -> Tensor:
        """What is appended (B, T, C') to the channels of a whole sequence (B, T, C)."""

    @abstractmethod
    def last(self, past: Tensor, items: Tensor) -> Tensor:
        """`forward` at the last place, (B, n, C').

        For each of n `items` (B, n, C) behind the same `past` (B, S, C).
        """


class CausalAttention(CausalLayer):
    """Each item attends to itself and to those before it, with keys of `keys` values."""

    def __init__(self, channels: int, keys: int, values: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (
            nn.Linear(channels, size) for size in (keys, keys, values)
        )
        self.scale = keys**-0.5

    def forward(self, sequence: Tensor) -> Tensor:
        """Values (B, T, V)."""
        # (B, T that asks, T that is asked)
        scores = self.scale * self.query(sequence) @ self.key(sequence).mT
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        read: Tensor = scores.masked_fill(later, float("-inf")).softmax(-1) @ self.value(sequence)
        return read

    def last(self, past: Tensor, items: Tensor) -> Tensor:
        """Values (B, n, V)."""
        query = self.scale * self.query(items)
        to_past, to_itself = (
            query @ self.key(past).mT,
            (query * self.key(items)).sum(-1, keepdim=True),
        )
        weights = torch.cat([to_past, to_itself], -1).softmax(-1)
        read: Tensor = weights[..., :-1] @ self.value(past) + weights[..., -1:] * self.value(items)
        return read


class DenseBlock(CausalLayer):
    """A causal convolution of two items, `dilation` apart, with tanh and a sigmoid gate."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        # of the earlier item's channels and its own
        self.convolution = nn.Linear(2 * channels, 2 * filters)

    def forward(self, sequence: Tensor) -> Tensor:
        """Activations (B, T, filters)."""
        earlier = F.pad(sequence, (0, 0, self.dilation, 0))[:, : sequence.shape[1]]
        return self._gated(earlier, sequence)

    def last(self, past: Tensor, items: Tensor) -> Tensor:
        """Activations (B, n, filters)."""
        place = past.shape[1] - self.dilation
        earlier = past[:, place, None].expand_as(items) if place >= 0 else torch.zeros_like(items)
        return self._gated(earlier, items)

    def _gated(self, earlier: Tensor, sequence: Tensor) -> Tensor:
        values, gates = self.convolution(torch.cat([earlier, sequence], -1)).chunk(2, -1)
        gated: Tensor = values.tanh() * gates.sigmoid()
        return gated
