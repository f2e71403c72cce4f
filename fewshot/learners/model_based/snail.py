"""SNAIL, the simple neural attentive learner (Mishra et al., arXiv:1707.03141).

Shapes: T = S + 1 items of a sequence, C channels, n queries of an episode. Every layer appends its
channels to those it is given, and looks back only. What it makes of the support is therefore the
same for every query, and is made once.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.learners.model_based.causal import CausalAttention, CausalLayer, DenseBlock
from fewshot.learners.model_based.sequence import SequenceLearner


class SNAIL(SequenceLearner):
    """SNAIL: temporal convolutions and attention over the labelled support and a query.

    Paper: arXiv:1707.03141.

    The depth of the convolutions follows from the length of the support: train and test with the
    same way and shot.

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
        shot: Count,
        filters: Count = 128,
        keys: Sequence[Count] = (64, 256, 512),
        values: Sequence[Count] = (32, 128, 256),
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if len(keys) != 3 or len(values) != 3:
            raise FewshotError(
                f"keys is {list(keys)} and values {list(values)}; give three sizes of each"
            )
        self.shot = shot
        channels = self.features + self.task.one_way
        depth = (self.task.one_way * shot).bit_length()  # ceil(log2 T)
        self.layers = nn.ModuleList()
        for block in range(3):
            added: list[CausalLayer] = [CausalAttention(channels, keys[block], values[block])]
            channels += values[block]
            for i in range(depth if block < 2 else 0):
                added.append(DenseBlock(channels, filters, 2**i))
                channels += filters
            self.layers.extend(added)
        self.head = nn.Linear(channels, self.task.one_way)

    def causal_layers(self) -> list[CausalLayer]:
        """The layers in turn."""
        return [layer for layer in self.layers if isinstance(layer, CausalLayer)]

    def read(self, support: Examples) -> list[Tensor]:
        """What each layer is given at the support's places: (B, S, C) a layer."""
        assert isinstance(support.inputs, Tensor)
        if support.inputs.shape[1] != self.task.one_way * self.shot:
            raise FewshotError(
                f"SNAIL was built for supports of {self.task.one_way}-way {self.shot}-shot, but one"
                f" has {support.inputs.shape[1]} examples; train and test with the same way and"
                " shot (leave train_shot out)"
            )
        sequence = torch.cat(
            [support.inputs, self.one_hot(support.targets, support.inputs.dtype)], -1
        )
        kept = []
        for layer in self.causal_layers():
            kept.append(sequence)
            sequence = torch.cat([sequence, layer(sequence)], -1)
        return kept

    def answer(self, kept: list[Tensor], queries: Tensor) -> Tensor:
        """Logits of each query as the last item, its label zero."""
        items = F.pad(queries, (0, self.task.one_way))
        for layer, past in zip(self.causal_layers(), kept, strict=True):
            items = torch.cat([items, layer.last(past, items)], -1)
        logits: Tensor = self.head(items)
        return logits
