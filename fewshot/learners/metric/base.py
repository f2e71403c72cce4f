"""The metric-based family: one embedding for all episodes, and a comparison of features."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.episode_map import map_episodes
from fewshot.engine.mixing import Mixture, mixture_in, places_to_mix, run_mixed
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, count, stack, unstacked
from fewshot.learners.comparing import ComparingLearner
from fewshot.learners.embedding import at_least_float32
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

    mixed_at: tuple[str, ...] = ()
    """The modules of the backbone of which one may be drawn, to mix other examples in."""

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)

    def augmented(self) -> bool:
        """Whether training's inputs are changed at random, which mixing does."""
        return bool(self.mlti) or super().augmented()

    def layers_to_mix(self, episodes: Episode) -> int:
        """How many layers of the backbone there are of which one may be drawn."""
        inputs = episodes.support.inputs
        assert isinstance(inputs, Tensor)  # who asks has seen to it
        self.mixed_at = self.mixed_at or places_to_mix(self.backbone, self.embed, inputs[0])
        return len(self.mixed_at)

    def embed_meta_batch(self, episodes: Episode, training: bool) -> tuple[Tensor, Tensor]:
        """Support features (B, S, ...), query features (B, N*Q, ...), mixed ones in training."""
        if (mixture := whole_mixture(episodes)) is None:
            return super().embed_meta_batch(episodes, training)
        layers = [self.backbone.get_submodule(name) for name in self.mixed_at]
        flat = at_least_float32(run_mixed(self.embed, mixture, layers))
        features = flat.view(count(episodes), -1, *flat.shape[1:])
        size = episodes.support.targets.shape[1]
        return features[:, :size], features[:, size:]

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


def whole_mixture(episodes: Episode) -> Mixture | None:
    """All examples of B episodes that are to be mixed, as one mixture; None of plain ones."""
    support, query = (mixture_in(part.inputs) for part in episodes)
    if support is None or query is None:
        return None
    (size, seen), number = support.partner.shape, query.partner.shape[1]
    start = torch.arange(size, device=support.place.device)[:, None] * (seen + number)
    return Mixture(
        torch.cat([support.first, query.first], 1).flatten(0, 1),
        torch.cat([support.second, query.second], 1).flatten(0, 1),
        (torch.cat([support.partner, query.partner + seen], 1) + start).flatten(),
        support.share.repeat_interleave(seen + number),
        support.place.repeat_interleave(seen + number),
    )
