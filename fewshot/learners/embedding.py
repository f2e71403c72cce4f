"""Features of a whole meta-batch by one network that is the same for all episodes."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewshot.backbones.base import features_of
from fewshot.backbones.pretrained import PretrainedBackbone
from fewshot.engine.episode_map import map_episodes
from fewshot.episodes.streams import Stage
from fewshot.episodes.types import Episode, Inputs, count, map_tensors
from fewshot.learners.embedding_once import EmbedsOnce
from fewshot.learners.features_held import chunk_of
from fewshot.learners.outcome import Outcome

OFTEN = 4
"""How often episodes ask for an example on average from which on nearly all are asked for: 98 %."""


class EmbeddingLearner(EmbedsOnce):
    """A learner with one backbone for all episodes: one forward pass embeds a meta-batch.

    Batch normalisation trains on the statistics of the whole meta-batch; at evaluation `inductive`
    uses the running averages of training, `transductive` those of each episode's support and query
    together.

    At evaluation each example is embedded once, if its features are a function of it alone (see
    `fewshot.learners.features_held`).

    Args:
        backbone: the network from inputs to features.
        **kwargs: arguments of `EmbedsOnce`.
    """

    def embed(self, inputs: Inputs) -> Tensor:
        """Features (n, ...) of inputs (n, ...); of a frozen backbone those made before."""
        kept = self.features_kept
        if kept is None or (self.training and self.augmented()):
            return features_of(self.backbone, inputs)
        if self.batchnorm == "transductive" and not isinstance(self.backbone, PretrainedBackbone):
            return features_of(self.backbone, inputs)  # an episode may normalise it
        return kept.of(inputs)

    @contextmanager
    def on_features(self) -> Iterator[None]:
        """Inside, inputs are features already: `embed`, whosever it is, gives them as they are."""
        self.embed = _as_given  # type: ignore[method-assign]
        try:
            yield
        finally:
            del self.embed

    def embed_meta_batch(self, episodes: Episode, training: bool) -> tuple[Tensor, Tensor]:
        """Support features (B, S, ...), query features (B, N*Q, ...), by batch norm policy."""
        by_episode = not training and self.batchnorm == "transductive"
        in_chunks = not training and not self.backbone.training and self.features_kept is None
        if self.features_held is None or training or by_episode:
            embed = self.embed_in_chunks if in_chunks and not by_episode else self.embed
            return embed_meta_batch(embed, episodes, by_episode)
        return embed_meta_batch(partial(self._embed_once, in_chunks=in_chunks), episodes)

    def embed_ahead(self, stage: Stage, batches: float) -> None:
        """Embed a split's examples also where the network moves, if each is asked for often.

        Batches of fixed size then are full, where each meta-batch fills up its last one.
        """
        super().embed_ahead(stage, batches)
        held = self.features_held
        datamodule: Any = getattr(self.trainer, "datamodule", None)
        if held is None or stage == "train" or not hasattr(datamodule, "every_example"):
            return
        number = datamodule.number_of_examples(stage)
        asked = batches * datamodule.examples_a_batch(stage) / self.trainer.world_size
        if self.batchnorm == "transductive" or not 0 < OFTEN * number <= asked:
            return
        to_device = self.trainer.strategy.batch_to_device
        forward = self.trainer.precision_plugin.forward_context()
        with torch.inference_mode(False), torch.no_grad(), forward:
            for batch in datamodule.every_example(stage):
                found = held.features(self.embed, to_device(batch, self.device).examples.inputs)
                if found is None or found.nbytes > held.bank.limit - held.bank.size:
                    return

    def embed_in_chunks(self, inputs: Inputs) -> Tensor:
        """`embed`, of images on a CPU a few at a time, which is faster.

        For networks that treat each image by itself, as in evaluation mode.
        """
        size = chunk_of(inputs, self.backbone)
        if size is None:
            return self.embed(inputs)
        assert isinstance(inputs, Tensor)
        return torch.cat([self.embed(part) for part in torch.split(inputs, size)])

    def _embed_once(self, inputs: Inputs, in_chunks: bool) -> Tensor:
        """`embed` of those inputs (n, ...) whose features are not held, if that is how it works."""
        assert self.features_held is not None
        found = self.features_held.features(self.embed, inputs)
        if found is not None:
            return found
        return self.embed_in_chunks(inputs) if in_chunks else self.embed(inputs)

    def judged(self, outputs: Tensor, targets: Tensor) -> Outcome:
        """The outcome of outputs (B, n, output_size), targets (B, n, ...), by episode."""
        return Outcome(
            torch.func.vmap(self.task.loss)(outputs, targets),
            torch.func.vmap(self.task.metrics)(outputs, targets),
            outputs,
        )


def embed_meta_batch(
    embed: Callable[[Inputs], Tensor],
    episodes: Episode,
    by_episode: bool = False,
) -> tuple[Tensor, Tensor]:
    """Support features (B, S, ...) and query features (B, N*Q, ...), half precision as float32.

    Args:
        embed: from inputs (n, ...) to features (n, ...).
        episodes: B of them, stacked.
        by_episode: embed each episode by itself, its batch normalisation by the statistics of its
            support and query together; otherwise the meta-batch takes one call, in the network's
            own mode.
    """
    if by_episode:
        (features,) = map_episodes(
            lambda one, norm: embed(joined(one, 0)), episodes, "loop", count(episodes)
        )
    else:
        inputs = map_tensors(lambda tensor: tensor.flatten(0, 1), joined(episodes, 1))
        flat = embed(inputs)
        features = flat.view(count(episodes), -1, *flat.shape[1:])
    features, size = at_least_float32(features), episodes.support.targets.shape[1]
    return features[:, :size], features[:, size:]


def _as_given(inputs: Inputs) -> Tensor:
    assert isinstance(inputs, Tensor)
    return inputs


def at_least_float32(features: Tensor) -> Tensor:
    """Features of half precision as float32, others as they are."""
    return features.to(torch.promote_types(features.dtype, torch.float32))


def full_precision(features: Tensor) -> AbstractContextManager[None]:
    """Inside, no mixed precision.

    A squared distance is a small difference of large numbers, a fit a long sum.
    """
    return torch.autocast(features.device.type, enabled=False)


def joined(episode: Episode, axis: int) -> Inputs:
    """Support and query inputs one after the other along `axis`."""
    support, query = episode.support.inputs, episode.query.inputs
    if isinstance(support, dict) and isinstance(query, dict):
        return {name: torch.cat([support[name], query[name]], axis) for name in support}
    assert isinstance(support, Tensor)
    assert isinstance(query, Tensor)
    return torch.cat([support, query], axis)
