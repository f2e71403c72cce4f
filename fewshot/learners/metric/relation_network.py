"""Relation Networks (Sung et al., arXiv:1711.06025)."""

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count
from fewshot.backbones.base import Backbone, map_shape, maps_of
from fewshot.episodes.types import Episode, Inputs
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means, class_sums

SMALLEST_MAP = 4  # H = W of a map that can be pooled twice


class RelationNetwork(MetricLearner):
    """Relation Network: a second network learns how well a query and a class go together.

    Paper: arXiv:1711.06025.

    It reads the feature maps of a backbone that has them (`Conv4` with ``pooled_blocks: 2``, the
    paper's), else feature vectors, with linear layers for convolutions. Takes episodes of any way.

    Args:
        backbone: the embedding network.
        combine: a class is the `sum` (the paper's) or the `mean` of its support features; with the
            mean, other shots at test than in training are less of a surprise.
        objective: `mse` of the sigmoid of the scores to 1 for the right class and 0 for the others
            (the paper's), or `cross_entropy` of the scores.
        hidden: channels of the relation module (the paper: 64).
        **kwargs: arguments of `MetaLearner`.
    """

    aliases: ClassVar[tuple[str, ...]] = ("RelationNet",)

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        combine: Literal["sum", "mean"] = "sum",
        objective: Literal["mse", "cross_entropy"] = "mse",
        hidden: Count = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.combine, self.objective = combine, objective
        shape = map_shape(self.backbone)
        self.on_maps = shape is not None and min(shape[1:]) >= SMALLEST_MAP
        self.embeds_maps = self.on_maps
        self.relation = Relation(shape if shape and self.on_maps else (self.features,), hidden)

    def embed(self, inputs: Inputs) -> Tensor:
        """Feature maps (n, C, H, W), or features (n, D), of inputs (n, ...)."""
        return maps_of(self.backbone, inputs) if self.on_maps else super().embed(inputs)

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """One feature a class, (N, ...), of support features (S, ...)."""
        return (class_sums if self.combine == "sum" else class_means)(features, targets, way)

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Scores (n, N), before any sigmoid, of query features (n, ...)."""
        return self.compare_all(predictor[None], features[None])[0]

    def compare_all(self, predictors: Tensor, features: Tensor) -> Tensor:
        """Scores (B, n, N).

        The relation module's batch normalisation sees the pairs of all episodes.
        """
        scores: Tensor = self.relation(predictors, features)
        return scores

    def loss(self, outputs: Tensor, embedded: Episode) -> Tensor:
        """The objective of one episode's scores (n, N)."""
        if self.objective == "cross_entropy":
            return super().loss(outputs, embedded)
        one_hot = F.one_hot(embedded.query.targets, outputs.shape[1]).to(outputs.dtype)
        return F.mse_loss(outputs.sigmoid(), one_hot)


class Relation(nn.Module):
    """The relation module: two convolutional blocks and two linear layers on joined maps.

    A class's and a query's maps are joined.

    The first convolution is linear in the joined maps, so that it is taken of classes and queries
    apart and added up pair by pair: N + n convolutions for N * n.

    Args:
        shape: of a feature: (C, H, W), or (D,) for one linear layer in the blocks' place.
        hidden: channels of the blocks.
    """

    def __init__(self, shape: tuple[int, ...], hidden: int) -> None:
        super().__init__()
        self.of_class: nn.Module
        self.of_query: nn.Module
        if len(shape) == 3:
            self.of_class = nn.Conv2d(shape[0], hidden, 3, padding=1)
            self.of_query = nn.Conv2d(shape[0], hidden, 3, padding=1, bias=False)
            size = hidden * (shape[1] // 4) * (shape[2] // 4)
            blocks: list[nn.Module] = [
                # pooling before the ReLU is the same function on a quarter of the elements
                *(nn.BatchNorm2d(hidden), nn.MaxPool2d(2), nn.ReLU()),
                *(
                    nn.Conv2d(hidden, hidden, 3, padding=1),
                    nn.BatchNorm2d(hidden),
                    nn.MaxPool2d(2),
                    nn.ReLU(),
                ),
            ]
        else:
            self.of_class, self.of_query = (
                nn.Linear(shape[0], hidden),
                nn.Linear(shape[0], hidden, bias=False),
            )
            size, blocks = hidden, [nn.BatchNorm1d(hidden), nn.ReLU()]
        self.score = nn.Sequential(
            *blocks, nn.Flatten(), nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, 1)
        )

    def forward(self, classes: Tensor, queries: Tensor) -> Tensor:
        """Scores (B, n, N) of classes (B, N, ...) and queries (B, n, ...)."""
        one = self.of_class(classes.flatten(0, 1)).unflatten(0, classes.shape[:2])
        two = self.of_query(queries.flatten(0, 1)).unflatten(0, queries.shape[:2])
        pairs = one[:, None] + two[:, :, None]  # B, n, N, ...
        scores: Tensor = self.score(pairs.flatten(0, 2)).view(pairs.shape[:3])
        return scores
