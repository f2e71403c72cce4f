"""Runs a function of ONE episode over a meta-batch: one by one or vectorised, in chunks; the same result always."""

from collections.abc import Callable, Iterator
from typing import Literal, TypeAlias, TypeVar

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree

from fewshot.episodes import Episode, count, episode, map_tensors, stack
from fewshot.normalization import EpisodeNorm

Parallel: TypeAlias = Literal["auto", "loop", "vmap"]
Result = TypeVar("Result")

SMALL_EPISODE = 4096
"""Support values up to which vmap beats the loop on a CPU."""


def choose(parallel: Parallel, meta_batch: Episode) -> Literal["loop", "vmap"]:
    """What `auto` stands for: vmap where kernel launches or Python bound the step, else the loop.

    That is on every accelerator, and on a CPU for episodes of a few thousand numbers; larger ones leave the cache
    when all episodes' activations are held at once.
    """
    if parallel != "auto":
        return parallel
    tensors = [leaf[0] for leaf in pytree.tree_leaves(meta_batch.support.inputs)]
    small = sum(tensor.numel() for tensor in tensors) <= SMALL_EPISODE
    return "vmap" if small or tensors[0].device.type != "cpu" else "loop"


def map_episodes(
    function: Callable[[Episode, EpisodeNorm], Result],
    meta_batch: Episode,
    parallel: Parallel = "auto",
    episodes_per_chunk: int | None = None,
) -> Iterator[Result]:
    """Yield the results of `function` for successive chunks of a meta-batch, stacked along a first axis b.

    The results come chunk by chunk so that the caller can run each chunk's backward, which frees its graph, before
    the next is computed. The episode's normalisation layers use its own statistics (see `EpisodeNorm`), and attention
    runs in plain operations, because the fused kernels have no second derivative.

    Args:
        function: takes an episode (no axis B) and the normalisation in force, gives a tree of tensors.
        meta_batch: B episodes.
        parallel: `loop` runs one episode after another, `vmap` a chunk at once, `auto` what is faster here.
        episodes_per_chunk: episodes held in memory at once; None means 1 for the loop, all for vmap.
    """
    how = choose(parallel, meta_batch)
    size = episodes_per_chunk or (1 if how == "loop" else count(meta_batch))
    for start in range(0, count(meta_batch), size):
        chunk = map_tensors(lambda tensor: tensor[start : start + size], meta_batch)  # noqa: B023  # used at once
        with sdpa_kernel(SDPBackend.MATH), EpisodeNorm(exact_vmap=how == "vmap") as norm:
            if how == "vmap":
                result = torch.func.vmap(lambda one: function(one, norm), randomness="different")(chunk)
            else:
                result = stack([function(episode(chunk, i), norm) for i in range(count(chunk))])
        yield result  # outside of the modes, which must not reach into the caller's code
