"""Runs a function of ONE episode over a meta-batch: loop or vmap, chunked, compiled or not.

The result is the same.
"""

from collections.abc import Callable, Hashable, Iterator
from operator import attrgetter
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fewshot.engine.compiling.compiler import Compiler
from fewshot.engine.modes import How, episode_modes, transformed
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import (
    Episode,
    Examples,
    Inputs,
    count,
    episode,
    flatten,
    map_tensors,
    stack,
    unflatten,
)

Parallel: TypeAlias = Literal["auto", "loop", "vmap"]
Result = TypeVar("Result")

SMALL_FLOP = 5_000_000
"""Operations of a forward pass over one support set up to which vmap beats the loop on a CPU.

Measured by ``benchmarks/engine.py``: a Conv4 of 0.7 MFLOP is 2.6 times as fast by vmap, one of 32
MFLOP 0.6 times, because the activations of a whole meta-batch leave the cache.
"""


def choose(
    network: nn.Module,
    episodes: Episode,
    probe: Callable[[Examples], Inputs] = attrgetter("inputs"),
) -> How:
    """What `auto` stands for: vmap where kernel launches or Python bound the step, else the loop.

    That is on every accelerator, and on a CPU for small networks (`SMALL_FLOP`). Networks that
    cannot be vmapped over take the loop everywhere (`loop_only`).

    Args:
        network: what the inner loop runs.
        episodes: the meta-batch to come, for its shapes and its device.
        probe: gives what the network reads of a support set.
    """
    if loop_only(network) is not None:
        return "loop"
    if episodes.support.targets.device.type != "cpu":
        return "vmap"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(probe(episode(episodes, 0).support))
    return "vmap" if counter.get_total_flops() <= SMALL_FLOP else "loop"


def loop_only(network: nn.Module) -> str | None:
    """The class of the first module whose weights cannot be vmapped over; None where all can.

    Those are recurrent ones, and modules that say so themselves by a true attribute `loop_only`.
    """
    kinds = (nn.RNNBase, nn.RNNCellBase)
    modules = (
        m for m in network.modules() if isinstance(m, kinds) or getattr(m, "loop_only", False)
    )
    return next((type(module).__name__ for module in modules), None)


def map_episodes(
    function: Callable[[Episode, EpisodeNorm], Result],
    episodes: Episode,
    how: How,
    episodes_per_chunk: int | None = None,
    compiler: Compiler | None = None,
    key: Hashable = None,
) -> Iterator[Result]:
    """Yield results of `function` for chunks of a meta-batch, stacked along a first axis b.

    The results come chunk by chunk so that the caller can run each chunk's backward, which frees
    its graph, before the next is computed. It runs under `episode_modes`.

    Args:
        function: takes an episode (no axis B) and the normalisation in force, gives a tree of
            tensors.
        episodes: B of them, stacked.
        how: `loop` runs one episode after another, `vmap` a chunk at once.
        episodes_per_chunk: episodes held in memory at once; None means 1 for the loop, all for
            vmap.
        compiler: runs `function` compiled; None runs it as it is; one that captures, the loop one
            by one.
        key: for the compiler: all that the function's operations depend on besides the shapes.
    """
    size = episodes_per_chunk or (1 if how == "loop" else count(episodes))
    if how == "loop" and compiler is not None and compiler.captures:
        size = 1  # each run writes over what the backward pass of the last one reads

    def run(part: Episode) -> Result:
        """One episode for the loop, a chunk for vmap.

        The modes end before the caller's code goes on.
        """
        outside = transformed.set(how == "vmap" or compiler is not None)
        try:
            with episode_modes(how) as norm:
                if how == "loop":
                    return function(part, norm)
                # of tensors alone: torch's transforms take no None, which marks may be
                leaves, structure = flatten(part)
                result: Result = torch.func.vmap(
                    lambda *leaves: function(unflatten(structure, leaves), norm),
                    randomness="different",
                )(*leaves)
                return result
        finally:
            transformed.reset(outside)

    def maybe_compiled(part: Episode) -> Result:
        return run(part) if compiler is None else compiler(run, part, (how, key))

    for start in range(0, count(episodes), size):
        # used at once
        chunk = map_tensors(lambda tensor: tensor[start : start + size], episodes)  # noqa: B023
        if how == "vmap":
            yield maybe_compiled(chunk)
        else:
            yield stack([maybe_compiled(episode(chunk, i)) for i in range(count(chunk))])
