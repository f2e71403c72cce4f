"""The metric-based family: one embedding for all episodes, and a comparison of query to support features."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from fewshot.engine import map_episodes
from fewshot.episodes import Episode, Examples, Inputs, count, map_tensors
from fewshot.learners.base import MetaLearner, Outcome, evaluation_mode


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

        support, query = self._embed_meta_batch(meta_batch, training)
        labels, targets = meta_batch.support.targets, meta_batch.query.targets
        yield torch.func.vmap(outcome)(support, labels, query, targets)

    def _embed_meta_batch(self, meta_batch: Episode, training: bool) -> tuple[Tensor, Tensor]:
        """Support features (B, S, ...) and query features (B, N*Q, ...)."""
        if not training and self.batchnorm == "transductive":
            (features,) = map_episodes(
                lambda one, norm: self.embed(_joined(one, 0)), meta_batch, "loop", count(meta_batch)
            )
        else:
            inputs = map_tensors(lambda tensor: tensor.flatten(0, 1), _joined(meta_batch, 1))
            flat = self.embed(inputs)
            features = flat.view(count(meta_batch), -1, *flat.shape[1:])
        size = meta_batch.support.targets.shape[1]
        return features[:, :size], features[:, size:]


def _joined(episode: Episode, axis: int) -> Inputs:
    """Support and query inputs one after the other along `axis`."""
    support, query = episode.support.inputs, episode.query.inputs
    if isinstance(support, dict) and isinstance(query, dict):
        return {name: torch.cat([support[name], query[name]], axis) for name in support}
    assert isinstance(support, Tensor)
    assert isinstance(query, Tensor)
    return torch.cat([support, query], axis)
