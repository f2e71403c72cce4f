"""Matching Networks (Vinyals et al., arXiv:1606.04080)."""

from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import membership

TINY = 1e-8  # keeps the logarithm of a class without attention, and its gradient, finite


class Memory(NamedTuple):
    """What queries attend to: support embeddings (..., S, D) and their classes (..., S, N)."""

    keys: Tensor
    member: Tensor


class MatchingNetwork(MetricLearner):
    """Matching Network: a query takes the labels of the support by attention to it.

    Paper: arXiv:1606.04080.

    The probability of a class is the attention that its support examples get. Takes episodes of any
    way.

    Args:
        backbone: the embedding network.
        distance: the attention is a softmax of `cosine` similarity (the paper's) or of negative
            squared `euclidean` distance.
        scale: the similarity is multiplied by it before the softmax. The paper has none (1), which
            keeps the largest attention among 20 examples below 28 % and so trains slowly; None
            means 10 for cosine, 1 for Euclidean.
        full_context: full context embeddings: a bidirectional LSTM reads the support, which makes
            each example's embedding depend on the others and on their order; an attention LSTM
            reads it for each query.
        read_steps: K, the steps of the attention LSTM.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: `read_steps` is below 1.
    """

    aliases: ClassVar[tuple[str, ...]] = ("MatchingNet",)

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        distance: Literal["cosine", "euclidean"] = "cosine",
        scale: Positive | None = None,
        full_context: bool = False,
        read_steps: Count = 5,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.distance = distance
        self.scale = (10.0 if distance == "cosine" else 1.0) if scale is None else scale
        self.full_context = FullContext(self.features, read_steps) if full_context else None

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Memory:
        """The memory of support features (S, D)."""
        keys = (
            features if self.full_context is None else self.full_context.support(features[None])[0]
        )
        return Memory(keys, membership(targets, way, features.dtype))

    def fit_all(self, features: Tensor, targets: Tensor, way: int) -> Memory:
        """The memories of support features (B, S, D).

        An LSTM takes them as a batch, not under vmap.
        """
        keys = features if self.full_context is None else self.full_context.support(features)
        return Memory(
            keys, membership(targets.flatten(), way, features.dtype).view(*targets.shape, way)
        )

    def compare(self, predictor: Memory, features: Tensor) -> Tensor:
        """Log-probabilities (n, N) of query features (n, D)."""
        return self.compare_all(Memory(*(part[None] for part in predictor)), features[None])[0]

    def compare_all(self, predictors: Memory, features: Tensor) -> Tensor:
        """Log-probabilities (B, n, N) of query features (B, n, D)."""
        keys, member = predictors
        queries = features if self.full_context is None else self.full_context.query(features, keys)
        if self.distance == "cosine":
            similarity = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).mT
        else:
            squares = queries.square().sum(-1)[..., None] + keys.square().sum(-1)[..., None, :]
            similarity = 2 * queries @ keys.mT - squares
        attention = (self.scale * similarity).softmax(-1)  # B, n, S
        return (attention @ member + TINY).log()


class FullContext(nn.Module):
    """Full context embeddings: each example in the light of the whole support (paper, appendix A).

    Args:
        features: D.
        read_steps: K, the steps of the attention LSTM.
    """

    def __init__(self, features: int, read_steps: int) -> None:
        super().__init__()
        self.read_steps = read_steps
        self.encoder = nn.LSTM(features, features, batch_first=True, bidirectional=True)
        # the paper's cell sees f'(x) as its input and [h, r] as its state; r as an input is the
        # same function
        self.cell = nn.LSTMCell(2 * features, features)

    def support(self, features: Tensor) -> Tensor:
        """g: support features (B, S, D) plus what the LSTM says of them in either direction."""
        forward, backward = self.encoder(features)[0].chunk(2, -1)
        context: Tensor = forward + backward + features
        return context

    def query(self, features: Tensor, keys: Tensor) -> Tensor:
        """f: query features (B, n, D) after K readings of the support's `keys` (B, S, D)."""
        flat = features.flatten(0, 1)
        hidden, cell = torch.zeros_like(flat), torch.zeros_like(flat)
        for _ in range(self.read_steps):
            attention = (hidden.view_as(features) @ keys.mT).softmax(-1)
            read = (attention @ keys).flatten(0, 1)
            output, cell = self.cell(torch.cat([flat, read], -1), (hidden, cell))
            hidden = output + flat
        return hidden.view_as(features)
