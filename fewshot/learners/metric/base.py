"""The metric-based family: one embedding for all episodes, and a comparison of query to support features."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fewshot.episodes import Episode, Examples, Inputs
from fewshot.learners.base import MetaLearner, Outcome, evaluation_mode
from fewshot.learners.embedding import embed_meta_batch


class MetricLearner(MetaLearner):
    """Metric-based few-shot learning: embed, then compare.

    The network is the same for all episodes, so that a meta-batch is embedded in one forward pass. A subclass says
    how the support features become a predictor (`fit`) and how that judges query features (`compare`).

    Batch normalisation trains on the statistics of the whole meta-batch; at evaluation `inductive` uses the running
    averages of training, `transductive` those of each episode's support and query together.
    """

    @abstractmethod
    def fit(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """A predictor (a tensor, or a tree of them) from support features (S, ...) and labels (S,) in 0..`way`-1."""

    @abstractmethod
    def compare(self, predictor: Any, features: Tensor) -> Tensor:
        """Logits (n, N) of query features (n, ...)."""

    def embed(self, inputs: Inputs) -> Tensor:
        """Features (n, ...) of inputs (n, ...)."""
        features = self.backbone(inputs)
        assert isinstance(features, Tensor)
        return features

    def adapt(self, support: Examples) -> Any:
        """The predictor of one support set, of any way; batch normalisation by the running averages."""
        with evaluation_mode(self.backbone):
            return self.fit(self.embed(support.inputs), support.targets, int(support.targets.max()) + 1)

    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...)."""
        with evaluation_mode(self.backbone):
            return self.compare(adapted, self.embed(inputs))

    def run(self, meta_batch: Episode, training: bool) -> Iterator[Outcome]:
        """Embed the meta-batch in one pass, then compare episode by episode, vectorised."""
        way = int(meta_batch.support.targets.max()) + 1

        def outcome(support: Tensor, labels: Tensor, query: Tensor, targets: Tensor) -> Outcome:
            outputs = self.compare(self.fit(support, labels, way), query)
            return Outcome(self.task.loss(outputs, targets), self.task.metrics(outputs, targets), outputs)

        apart = not training and self.batchnorm == "transductive"
        support, query = embed_meta_batch(self.embed, meta_batch, apart)
        labels, targets = meta_batch.support.targets, meta_batch.query.targets
        yield torch.func.vmap(outcome)(support, labels, query, targets)
