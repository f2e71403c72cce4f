"""How a learner's function of one episode is run: loop or vmap, in chunks, compiled, recomputed."""

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn

from fewshot.engine.compiling.compiler import Compile, Compiler
from fewshot.engine.episode_map import Parallel, choose, loop_only, map_episodes
from fewshot.engine.modes import How, evaluation_mode
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode
from fewshot.errors import FewshotError

Result = TypeVar("Result")


class Runner:
    """Runs functions of one episode over meta-batches; the result is the same however it does.

    Args:
        network: what the inner loop runs.
        body: the part of it that takes its time, from inputs to features.
        parallel: `loop`, `vmap`, or `auto` for what is faster on the device.
        episodes_per_chunk: episodes in memory at once; None means 1 for the loop, all for vmap.
        compile: compile what is run in training.
        recompute: compute an inner step's activations again in the backward pass.

    Raises:
        FewshotError: the options do not go together.
    """

    def __init__(
        self,
        network: nn.Module,
        body: nn.Module,
        parallel: Parallel = "auto",
        episodes_per_chunk: int | None = None,
        compile: Compile = False,
        recompute: bool = False,
    ) -> None:
        if episodes_per_chunk is not None and episodes_per_chunk < 1:
            raise FewshotError(
                f"episodes_per_chunk is {episodes_per_chunk}; set episodes_per_chunk >= 1"
            )
        if recompute and (compile or parallel == "vmap"):
            raise FewshotError(
                "checkpoint_inner_steps runs each episode by itself, uncompiled, but"
                f" episode_parallel is {parallel} and compile is {compile}; set"
                " episode_parallel: loop and compile: false"
            )
        self.body, self.parallel, self.recompute = body, parallel, recompute
        self.episodes_per_chunk = episodes_per_chunk
        self.compiler = (
            Compiler("capture" if compile == "capture" else "inductor") if compile else None
        )
        self._recurrent = loop_only(network)
        self._auto: dict[Hashable, How] = {}
        self._done: set[str] = set()  # of what is said or checked once

    def run(
        self,
        function: Callable[[Episode, EpisodeNorm], Result],
        episodes: Episode,
        compiled_for: nn.Module | None = None,
    ) -> Iterator[Result]:
        """Yield results of `function` for chunks of a meta-batch, stacked along a first axis b.

        Args:
            function: takes an episode (no axis B) and the normalisation in force, gives a tree of
                tensors.
            episodes: B of them, stacked.
            compiled_for: the module that `function` belongs to, where it may be compiled: compiled
                code is of one state of that module. None runs it as it is.
        """
        how = self.how(episodes)
        compiler = None if compiled_for is None else self.compiler
        key = None
        if compiler is not None and compiled_for is not None:
            key = compiler.dependencies.number(compiled_for)
        return map_episodes(function, episodes, how, self.episodes_per_chunk, compiler, key)

    def how(self, episodes: Episode) -> How:
        """Loop or vmap.

        What `auto` means is found out once for each kind of device and size of support.
        """
        if self.recompute:
            return "loop"
        if self._recurrent is not None:
            self._say_loop()
            return "loop"
        if self.parallel != "auto":
            return self.parallel
        # the size is in it because a resumed run meets other episodes first
        targets = episodes.support.targets
        kind = targets.device.type, targets.shape[1]
        if kind not in self._auto:
            with evaluation_mode(self.body):
                self._auto[kind] = choose(self.body, episodes)
        return self._auto[kind]

    def recomputes(self) -> bool:
        """Whether to recompute inner steps: where a backward pass is to come."""
        return self.recompute and torch.is_grad_enabled()

    def first_time(self, what: str) -> bool:
        """Whether this is asked for the first time."""
        first = what not in self._done
        self._done.add(what)
        return first

    def _say_loop(self) -> None:
        """Once: that the loop is taken because of recurrent weights.

        Loudly where vmap was asked for.
        """
        if self.parallel != "loop" and self.first_time("loop"):
            say = rank_zero_warn if self.parallel == "vmap" else rank_zero_info
            say(f"{self._recurrent} weights cannot be vmapped over: episodes run one by one")


def option(name: str) -> Any:
    """An attribute of a learner that is its runner's `name`, to be read and set."""
    return property(
        lambda learner: getattr(learner.runner, name),
        lambda learner, value: setattr(learner.runner, name, value),
    )
