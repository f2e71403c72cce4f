"""SNAIL, the simple neural attentive learner (Mishra et al., arXiv:1707.03141).

Shapes: T = S + 1 items of a sequence, C channels, n queries of an episode. Every layer appends its channels to those it
is given, and looks back only. What it makes of the support is therefore the same for every query, and is made once.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.episodes import Examples
from fewshot.errors import FewshotError
from fewshot.learners.model_based.sequence import SequenceLearner


class CausalLayer(nn.Module):
    """A layer over a sequence in which no item sees a later one."""

    @abstractmethod
    def forward(self, sequence: Tensor) -> Tensor:
        """What is appended (B, T, C') to the channels of a whole sequence (B, T, C)."""

    @abstractmethod
    def last(self, past: Tensor, items: Tensor) -> Tensor:
        """`forward` at the last place, (B, n, C'), for each of n `items` (B, n, C) behind the same `past` (B, S, C)."""


class CausalAttention(CausalLayer):
    """Each item attends to itself and to those before it, with keys of `keys` values."""

    def __init__(self, channels: int, keys: int, values: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(channels, size) for size in (keys, keys, values))
        self.scale = keys**-0.5

    def forward(self, sequence: Tensor) -> Tensor:
        """Values (B, T, V)."""
        scores = self.scale * self.query(sequence) @ self.key(sequence).mT  # (B, T that asks, T that is asked)
        later = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu(1)
        read: Tensor = scores.masked_fill(later, float("-inf")).softmax(-1) @ self.value(sequence)
        return read

    def last(self, past: Tensor, items: Tensor) -> Tensor:
        """Values (B, n, V)."""
        query = self.scale * self.query(items)
        to_past, to_itself = query @ self.key(past).mT, (query * self.key(items)).sum(-1, keepdim=True)
        weights = torch.cat([to_past, to_itself], -1).softmax(-1)
        read: Tensor = weights[..., :-1] @ self.value(past) + weights[..., -1:] * self.value(items)
        return read


class DenseBlock(CausalLayer):
    """A causal convolution of two items, `dilation` apart, with tanh and a sigmoid gate."""

    def __init__(self, channels: int, filters: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.convolution = nn.Linear(2 * channels, 2 * filters)  # of the earlier item's channels and its own

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


class SNAIL(SequenceLearner):
    """SNAIL: temporal convolutions and attention over the labelled support and a query. Paper: arXiv:1707.03141.

    The depth of the convolutions follows from the length of the support: train and test with the same way and shot.

    Args:
        backbone: the network from inputs to features.
        shot: support examples a class; the command line takes it from the benchmark.
        filters: of each convolution (the paper: 128).
        keys: sizes of the keys of the three attentions (the paper: 64, 256, 512).
        values: sizes of their values (the paper: 32, 128, 256).
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        shot: int,
        filters: int = 128,
        keys: Sequence[int] = (64, 256, 512),
        values: Sequence[int] = (32, 128, 256),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if len(keys) != 3 or len(values) != 3 or min(*keys, *values, filters, shot) < 1:
            raise FewshotError(
                f"keys is {list(keys)}, values {list(values)}, filters {filters} and shot {shot}; give three sizes of"
                " keys and of values, all at least 1"
            )
        self.shot = shot
        channels = self.features + self.task.way
        depth = (self.task.way * shot).bit_length()  # ceil(log2 T)
        self.layers = nn.ModuleList()
        for block in range(3):
            added: list[CausalLayer] = [CausalAttention(channels, keys[block], values[block])]
            channels += values[block]
            for i in range(depth if block < 2 else 0):
                added.append(DenseBlock(channels, filters, 2**i))
                channels += filters
            self.layers.extend(added)
        self.head = nn.Linear(channels, self.task.way)

    def causal_layers(self) -> list[CausalLayer]:
        """The layers in turn."""
        return [layer for layer in self.layers if isinstance(layer, CausalLayer)]

    def read(self, support: Examples) -> list[Tensor]:
        """What each layer is given at the support's places: (B, S, C) a layer."""
        assert isinstance(support.inputs, Tensor)
        if support.inputs.shape[1] != self.task.way * self.shot:
            raise FewshotError(
                f"SNAIL was built for supports of {self.task.way}-way {self.shot}-shot, but one has"
                f" {support.inputs.shape[1]} examples; train and test with the same way and shot (leave train_shot out)"
            )
        sequence = torch.cat([support.inputs, self.one_hot(support.targets, support.inputs.dtype)], -1)
        kept = []
        for layer in self.causal_layers():
            kept.append(sequence)
            sequence = torch.cat([sequence, layer(sequence)], -1)
        return kept

    def answer(self, kept: list[Tensor], queries: Tensor) -> Tensor:
        """Logits of each query as the last item, its label zero."""
        items = F.pad(queries, (0, self.task.way))
        for layer, past in zip(self.causal_layers(), kept, strict=True):
            items = torch.cat([items, layer.last(past, items)], -1)
        logits: Tensor = self.head(items)
        return logits
