"""FEAT: set-to-set adaptation of prototypes (Ye et al., arXiv:1812.03664)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, NonNegative, Positive, Share
from fewshot.backbones.base import Backbone, dropout_layer
from fewshot.episodes.types import Episode
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means
from fewshot.learners.metric.prototypical_network import negative_squared_distance


class SetTransformer(nn.Module):
    """Self-attention over a set (B, m, D), a residual and layer normalisation.

    Args:
        features: D.
        heads: of the attention, each D wide as in the authors' code.
        dropout: of attention weights and outputs, in training.
    """

    def __init__(self, features: int, heads: int = 1, dropout: float = 0.5) -> None:
        super().__init__()
        self.heads, inner = heads, heads * features
        self.query, self.key, self.value = (
            nn.Linear(features, inner, bias=False) for _ in range(3)
        )
        for linear in (self.query, self.key, self.value):
            nn.init.normal_(linear.weight, std=math.sqrt(1 / features))
        self.out, self.norm = nn.Linear(inner, features), nn.LayerNorm(features)
        nn.init.xavier_normal_(self.out.weight)
        self.attention_dropout, self.dropout = dropout_layer(dropout / 5), dropout_layer(dropout)

    def forward(self, members: Tensor, apart: Tensor | None = None) -> Tensor:
        """The set (B, m, D), each member adapted to the others.

        Args:
            members: (B, m, D).
            apart: (B, m, m), true where two do not see each other.
        """
        q, k, v = (
            linear(members).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
            for linear in (self.query, self.key, self.value)
        )  # B, heads, m, D
        scores = q @ k.mT / math.sqrt(members.shape[-1])
        if apart is not None:
            scores = scores.masked_fill(apart[..., None, :, :], -torch.inf)
        mixed = self.attention_dropout(scores.softmax(-1)) @ v
        adapted: Tensor = self.norm(
            self.dropout(self.out(mixed.transpose(-2, -3).flatten(-2))) + members
        )
        return adapted


class FEAT(MetricLearner):
    """FEAT: Prototypical Network whose prototypes see each other through a transformer.

    A query belongs to the nearest adapted prototype. In training a contrastive term has the
    adapted mean of each class's examples, support and query, near all of them. The authors begin
    with a backbone that is pre-trained on the training classes (`weights`), and train it with a
    tenth of the transformer's rate. Paper: arXiv:1812.03664.

    Args:
        backbone: the embedding network.
        temperature: squared distances are divided by it.
        balance: weight of the contrastive term; 0 leaves it out.
        contrast_temperature: its squared distances are divided by it.
        heads: of the attention.
        dropout: of the adapted prototypes; of the attention weights a fifth of it.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        temperature: Positive = 64.0,
        balance: NonNegative = 0.1,
        contrast_temperature: Positive = 64.0,
        heads: Count = 1,
        dropout: Share = 0.5,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.transformer = SetTransformer(self.features, heads, dropout)
        self.temperature, self.balance = temperature, balance
        self.contrast_temperature = contrast_temperature

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """The adapted prototypes (N, D) of support features (S, D)."""
        return self.fit_all(features[None], targets[None], way)[0]

    def fit_all(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """The same with an axis B."""
        means = [class_means(*one, way) for one in zip(features, targets, strict=True)]
        adapted: Tensor = self.transformer(torch.stack(means))
        return adapted

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Logits (n, N): minus squared distance to the adapted prototypes, by the temperature."""
        return negative_squared_distance(features, predictor) / self.temperature

    def loss(self, outputs: Tensor, embedded: Episode) -> Tensor:
        """The cross-entropy, in training with the contrastive term."""
        loss = super().loss(outputs, embedded)
        if not self.training or not self.balance:
            return loss
        return loss + self.balance * self.contrast(embedded)

    def contrast(self, embedded: Episode) -> Tensor:
        """The cross-entropy of examples by the adapted mean of each class's examples."""
        (support, labels, _), (query, targets, _) = embedded
        way = int(labels.max()) + 1
        assert isinstance(support, Tensor)
        assert isinstance(query, Tensor)
        known = targets < way  # those of no class are of no one class either
        examples, classes = torch.cat([support, query[known]]), torch.cat([labels, targets[known]])
        apart = classes[:, None] != classes
        adapted = self.transformer(examples[None], apart[None])[0]
        centres = class_means(adapted, classes, way)
        logits = negative_squared_distance(examples, centres) / self.contrast_temperature
        return F.cross_entropy(logits, classes)
