"""The metric-based family: one embedding for all episodes, query compared to support features."""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.episode_map import map_episodes
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples, Inputs, count, episode, stack
from fewshot.learners.base import Outcome
from fewshot.learners.embedding import at_least_float32, full_precision
from fewshot.learners.rejecting import RejectingLearner


class MetricLearner(RejectingLearner):
    """Metric-based few-shot learning: embed, then compare.

    The network is the same for all episodes, so that a meta-batch is embedded in one forward pass.
    A subclass says how the support features become a predictor (`fit`) and how that judges query
    features (`compare`), for one episode. Where a layer cannot be vmapped (an LSTM) or has to see
    the whole meta-batch (batch normalisation), it writes `fit_all` or `compare_all` too.

    Batch normalisation trains on the statistics of the whole meta-batch; at evaluation `inductive`
    uses the running averages of training, `transductive` those of each episode's support and query
    together.

    Raises:
        FewshotError: the task is no classification.
    """

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)

    @abstractmethod
    def fit(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """A predictor (a tensor, or a tree of them) from support features and labels.

        Shapes: features (S, ...), labels (S,) in 0..`way`-1.
        """

    @abstractmethod
    def compare(self, predictor: Any, features: Tensor) -> Tensor:
        """Logits (n, N) of query features (n, ...)."""

    def fit_all(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """Predictors with an axis B, from support features (B, S, ...) and labels (B, S)."""
        return torch.func.vmap(partial(self.fit, way=way))(features, targets)

    def compare_all(self, predictors: Any, features: Tensor) -> Tensor:
        """Logits (B, n, N) of query features (B, n, ...)."""
        logits: Tensor = torch.func.vmap(self.compare)(predictors, features)
        return logits

    def loss(self, outputs: Tensor, embedded: Episode) -> Tensor:
        """The loss of one episode, a scalar, from its logits (N*Q, N), features and labels."""
        return self.task.loss(outputs, embedded.query.targets)

    def metrics(self, outputs: Tensor, embedded: Episode) -> dict[str, Tensor]:
        """Scalars of one episode by name, from its logits (N*Q, N) and its features and labels."""
        return self.task.metrics(outputs, embedded.query.targets)

    def adapt(self, support: Examples) -> Any:
        """The predictor of one support set, of any way.

        Batch normalisation by the running averages.
        """
        with evaluation_mode(self):
            features = at_least_float32(self.embed(support.inputs))
            with full_precision(features):
                return self.fit(features, support.targets, int(support.targets.max()) + 1)

    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...)."""
        with evaluation_mode(self):
            features = at_least_float32(self.embed(inputs))
            with full_precision(features):
                logits: Tensor = self.none(self.compare(adapted, features))
                return logits

    def run(self, meta_batch: Episode, training: bool) -> Iterator[Outcome]:
        """Embed the meta-batch in one pass, then compare query and support features at once."""
        support, query = self.embed_meta_batch(meta_batch, training)
        with full_precision(support):
            outcome = self._compare_meta_batch(meta_batch, support, query, training)
        yield outcome

    def _compare_meta_batch(
        self, meta_batch: Episode, support: Tensor, query: Tensor, training: bool
    ) -> Outcome:
        """The outcome of episodes: support features (B, S, ...), query features (B, N*Q, ...)."""
        way = int(meta_batch.support.targets.max()) + 1
        embedded = Episode(
            Examples(support, meta_batch.support.targets), Examples(query, meta_batch.query.targets)
        )
        if not training and self.batchnorm == "transductive":
            (outputs,) = map_episodes(
                partial(self._outputs, way=way), embedded, "loop", count(embedded)
            )
        else:
            outputs = self.none(
                self.compare_all(self.fit_all(support, embedded.support.targets, way), query)
            )
        losses, metrics = zip(
            *(self._judge(outputs[i], episode(embedded, i)) for i in range(count(embedded))),
            strict=True,
        )
        return Outcome(torch.stack(losses), stack(metrics), outputs)

    def _outputs(self, embedded: Episode, norm: EpisodeNorm, way: int) -> Tensor:
        """Logits (N*Q, N) of one episode whose normalisation layers use its own statistics."""
        assert isinstance(embedded.support.inputs, Tensor)
        assert isinstance(embedded.query.inputs, Tensor)
        logits: Tensor = self.none(
            self.compare(
                self.fit(embedded.support.inputs, embedded.support.targets, way),
                embedded.query.inputs,
            )
        )
        return logits

    def _judge(self, outputs: Tensor, embedded: Episode) -> tuple[Tensor, dict[str, Tensor]]:
        return self.loss(outputs, embedded), self.metrics(outputs, embedded)
