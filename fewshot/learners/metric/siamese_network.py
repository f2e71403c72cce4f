"""Siamese Networks: twins that tell whether two examples are of one class (Koch et al., 2015)."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Episode, Inputs
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import class_means, membership
from fewshot.learners.metric.pairs import (
    Mining,
    balanced_binary_cross_entropy,
    contrastive_loss,
    squared_distances,
    triplet_loss,
    verification,
)


class SiameseNetwork(MetricLearner):
    """Siamese Network: twins with tied weights and a learned distance. Paper: Koch et al. 2015.

    Trained on all pairs of an episode's examples, support and query; a query's class is that of the
    most similar support example. Besides the accuracy, every evaluation has the metrics of
    verification ("are these two of one class?", as for signatures) over all pairs of a query and a
    support example: the area under the ROC curve `auc` and the equal error rate `eer`. Takes
    episodes of any way. Source: "Siamese Neural Networks for One-shot Image Recognition", ICML 2015
    Deep Learning Workshop.

    Args:
        backbone: the twins.
        objective: `cross_entropy`: binary, on a weighted L1 distance (Koch); `contrastive`: 1/2 d^2
            for equal pairs, 1/2 max(0, margin - d)^2 for others; `triplet`: max(0, d^2(a, p) -
            d^2(a, n) + margin) (arXiv:1503.03832). Pairs of one class and pairs of two count the
            same in all, whatever their numbers.
        mining: which triplets of an episode count. `all`; `hardest`: an anchor's farthest positive
            and nearest negative; `semi_hard`: for each pair of anchor and positive, the nearest
            negative that is farther than the positive, or where none is, the farthest.
        margin: of `contrastive` and `triplet`.
        normalise: bring the features to unit length, as arXiv:1503.03832 does; its margin is then
            0.2.
        decide: a query is compared with the `nearest` support example of each class, or with the
            class's `mean`.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: `margin` is not positive.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        objective: Literal["cross_entropy", "contrastive", "triplet"] = "cross_entropy",
        mining: Mining = "all",
        margin: Positive = 1.0,
        normalise: bool = False,
        decide: Literal["nearest", "mean"] = "nearest",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.objective, self.mining, self.margin = objective, mining, margin
        self.normalise, self.decide = normalise, decide
        self.weights = nn.Linear(self.features, 1) if objective == "cross_entropy" else None

    def embed(self, inputs: Inputs) -> Tensor:
        """Features (n, D) of inputs (n, ...)."""
        features = super().embed(inputs)
        return F.normalize(features, dim=-1) if self.normalise else features

    def similarity(self, one: Tensor, two: Tensor) -> Tensor:
        """Similarity of features (n, D) and (m, D), (n, m): the one-class logit, or -distance."""
        if self.weights is not None:
            logits: Tensor = self.weights((one[:, None] - two).abs())[..., 0]
            return logits
        return -squared_distances(one, two)

    def fit(self, features: Tensor, targets: Tensor, way: int) -> tuple[Tensor, Tensor]:
        """What queries are compared with, (m, D), and which class each of it belongs to, (m, N)."""
        if self.decide == "mean":
            classes = torch.arange(way, device=targets.device)
            return class_means(features, targets, way), membership(classes, way, features.dtype)
        return features, membership(targets, way, features.dtype)

    def compare(self, predictor: tuple[Tensor, Tensor], features: Tensor) -> Tensor:
        """Similarity (n, N) of query features (n, D) to the most similar example of a class."""
        examples, member = predictor
        each = self.similarity(features, examples)  # n, m
        # not a tensor (n, m, N), which takes gigabytes where there are a hundred classes
        labels = member.argmax(-1).expand(each.shape)
        return each.new_full((each.shape[0], member.shape[1]), -torch.inf).scatter_reduce(
            1, labels, each, "amax"
        )

    def loss(self, outputs: Tensor, embedded: Episode) -> Tensor:
        """The objective over all pairs of one episode's examples."""
        # those of no class are of no one class either
        known = embedded.query.targets <= embedded.support.targets.max()
        features = torch.cat(
            [_features(embedded.support.inputs), _features(embedded.query.inputs)[known]]
        )
        labels = torch.cat([embedded.support.targets, embedded.query.targets[known]])
        if self.objective == "cross_entropy":
            return balanced_binary_cross_entropy(self.similarity(features, features), labels)
        if self.objective == "contrastive":
            return contrastive_loss(squared_distances(features, features), labels, self.margin)
        return triplet_loss(squared_distances(features, features), labels, self.margin, self.mining)

    def metrics(self, outputs: Tensor, embedded: Episode) -> dict[str, Tensor]:
        """The accuracy, and `auc` and `eer` over the pairs of query and support."""
        with torch.no_grad():
            scores = self.similarity(
                _features(embedded.query.inputs), _features(embedded.support.inputs)
            )
        same = embedded.query.targets[:, None] == embedded.support.targets
        auc, eer = verification(scores.flatten(), same.flatten())
        return {**super().metrics(outputs, embedded), "auc": auc, "eer": eer}


def _features(inputs: Any) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs
