"""Heads on transformed features: what classifiers without weights of their own share.

Shapes: "..." is the axis B of a meta-batch, or nothing; S support examples, n queries, N classes, D
features.
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.learners.centering import CenteringLearner, Transform
from fewshot.learners.transfer.base import TransferLearner


class Labelled(NamedTuple):
    """Transformed support features (..., S, D) and their classes, one-hot (..., S, N)."""

    features: Tensor
    labels: Tensor

    @property
    def means(self) -> Tensor:
        """The mean feature of each class, (..., N, D)."""
        return (self.labels.mT @ self.features) / self.labels.sum(-2)[..., None]


class FeatureHead(CenteringLearner, TransferLearner):
    """Cross-entropy pre-training, then a head that reads the support's transformed features.

    On a frozen backbone there is nothing to train: use `fewshot test`.

    Args:
        backbone: the network from inputs to features.
        transform: of the features: `none`, `l2` (unit length) or `cl2n` (centred at the mean of all
            training examples, then unit length; arXiv:1911.04623).
        **kwargs: arguments of `TransferLearner`.
    """

    def __init__(
        self, backbone: Backbone | nn.Module, transform: Transform = "l2", **kwargs: Any
    ) -> None:
        super().__init__(backbone, transform=transform, **kwargs)

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """The support's features (..., S, D), transformed, with their labels."""
        features = self.transformed(features)
        return Labelled(features, F.one_hot(targets, way).to(features.dtype))

    def compare(self, predictor: Any, features: Tensor) -> Tensor:
        """Logits (..., n, N) of query features (..., n, D)."""
        return self.answer(predictor, self.transformed(features))

    @abstractmethod
    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""


class TransductiveHead(FeatureHead):
    """A head that reads all queries of an episode together: none is judged by itself alone.

    `predict` takes the inputs that it is given together for the queries of one episode.

    Args:
        **kwargs: arguments of `FeatureHead`.
    """

    transductive = True

    def facts(self) -> dict[str, Any]:
        """That queries are read together."""
        return {**super().facts(), "transductive": True}


def squared_distances(one: Tensor, other: Tensor, squares: Tensor | None = None) -> Tensor:
    """||a - b||^2 of (..., n, D) and (..., m, D), shape (..., n, m).

    Args:
        one: the a.
        other: the b.
        squares: ||b||^2 (..., m), where they are known.
    """
    if squares is None:
        squares = other.square().sum(-1)
    squares = one.square().sum(-1)[..., None] + squares[..., None, :]
    return (squares - 2 * (one @ other.mT)).clamp(min=0)


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """cos(a, b) of (..., n, D) and (..., m, D), shape (..., n, m)."""
    return F.normalize(one, dim=-1) @ F.normalize(other, dim=-1).mT
