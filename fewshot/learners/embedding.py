"""Embedding a meta-batch by a network that all its episodes share."""

from collections.abc import Callable

import torch
from torch import Tensor

from fewshot.engine import map_episodes
from fewshot.episodes import Episode, Inputs, count, map_tensors


def embed_meta_batch(embed: Callable[[Inputs], Tensor], meta_batch: Episode, apart: bool) -> tuple[Tensor, Tensor]:
    """Support features (B, S, ...) and query features (B, N*Q, ...).

    Args:
        embed: features (n, ...) of inputs (n, ...).
        meta_batch: B episodes.
        apart: embed each episode by itself, so that batch normalisation uses the statistics of its support and query
            together; otherwise all go through `embed` in one pass.
    """
    if apart:
        (features,) = map_episodes(lambda one, norm: embed(joined(one, 0)), meta_batch, "loop", count(meta_batch))
    else:
        flat = embed(map_tensors(lambda tensor: tensor.flatten(0, 1), joined(meta_batch, 1)))
        features = flat.view(count(meta_batch), -1, *flat.shape[1:])
    size = meta_batch.support.targets.shape[1]
    return features[:, :size], features[:, size:]


def joined(episode: Episode, axis: int) -> Inputs:
    """Support and query inputs one after the other along `axis`."""
    support, query = episode.support.inputs, episode.query.inputs
    if isinstance(support, dict) and isinstance(query, dict):
        return {name: torch.cat([support[name], query[name]], axis) for name in support}
    assert isinstance(support, Tensor)
    assert isinstance(query, Tensor)
    return torch.cat([support, query], axis)
