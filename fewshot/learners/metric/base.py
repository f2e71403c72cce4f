"""The metric-based family: one embedding for all episodes, and a comparison of features."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.episode_map import map_episodes
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, count, stack, unstacked
from fewshot.learners.comparing import ComparingLearner
from fewshot.learners.interpolation import InterpolatesTasks
from fewshot.learners.outcome import Outcome


class MetricLearner(InterpolatesTasks, ComparingLearner):
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

    def loss(self, outputs: Tensor, embedded: Episode) -> Tensor:
        """The loss of one episode, a scalar, from its logits (N*Q, N), features and labels."""
        return self.task.loss(outputs, embedded.query.targets)

    def metrics(self, outputs: Tensor, embedded: Episode) -> dict[str, Tensor]:
        """Scalars of one episode by name, from its logits (N*Q, N) and its features and labels."""
        return self.task.metrics(outputs, embedded.query.targets)

    def logits(self, embedded: Episode, training: bool) -> Tensor:
        """Logits (B, N*Q, N); in transductive evaluation normalised by each episode's statistics.

        Those are of the layers that compare; the embedding's are in the features.
        """
        if training or self.batchnorm != "transductive":
            return super().logits(embedded, training)
        way = int(embedded.support.targets.max()) + 1
        outputs = partial(self._outputs, way=way)
        (logits,) = map_episodes(outputs, embedded, "loop", count(embedded))
        return logits

    def judge(self, outputs: Tensor, embedded: Episode) -> Outcome:
        """The outcome by `loss` and `metrics` of each episode."""
        judged = [
            (self.loss(one, embedding), self.metrics(one, embedding))
            for one, embedding in zip(outputs.unbind(), unstacked(embedded), strict=True)
        ]
        losses, metrics = zip(*judged, strict=True)
        return Outcome(torch.stack(losses), stack(metrics), outputs)

    def _outputs(self, embedded: Episode, norm: EpisodeNorm, way: int) -> Tensor:
        """Logits (N*Q, N) of one episode whose normalisation layers use its own statistics."""
        assert isinstance(embedded.support.inputs, Tensor)
        assert isinstance(embedded.query.inputs, Tensor)
        predictor = self.fit(embedded.support.inputs, embedded.support.targets, way)
        logits: Tensor = self.none(self.compare(predictor, embedded.query.inputs))
        return logits
