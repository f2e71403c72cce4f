"""How a learner's function of one episode is run: loop or vmap, in chunks, compiled, recomputed."""

import textwrap
from collections.abc import Callable, Hashable, Iterator
from operator import attrgetter, itemgetter
from typing import Any, TypeVar

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import nn
from torch.nn.utils.prune import is_pruned

from fewshot.engine.compiling.compiler import Compile, Compiler
from fewshot.engine.episode_map import Parallel, choose, loop_only, map_episodes
from fewshot.engine.mixing import unmixed
from fewshot.engine.modes import How, evaluation_mode
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.trials import Trial, untouched
from fewshot.episodes.types import Episode, Examples, Inputs, count, flatten, map_tensors
from fewshot.errors import FewshotError

Result = TypeVar("Result")


class Runner:
    """Runs functions of one episode over meta-batches; the result is the same however it does.

    Args:
        network: what the inner loop runs.
        body: the part of it that takes its time, from inputs to features.
        parallel: `loop`, `vmap`, or `auto` for what is faster on the device, and for the loop where
            the network cannot be vmapped over.
        episodes_per_chunk: episodes in memory at once; None means 1 for the loop, all for vmap.
        compile: compile what is run in training.
        recompute: compute an inner step's activations again in the backward pass.
        probe: gives what the network reads of a support set.

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
        probe: Callable[[Examples], Inputs] = attrgetter("inputs"),
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
        self.network, self.body = network, body
        self.parallel, self.recompute, self.probe = parallel, recompute, probe
        self.episodes_per_chunk = episodes_per_chunk
        self.compiler = (
            Compiler("capture" if compile == "capture" else "inductor") if compile else None
        )
        self._loop_only = loop_only(network)
        self._failed = False  # vmap, where it was only tried
        self._auto: dict[Hashable, How] = {}
        self._ran: set[Hashable] = set()  # kinds of runs of which one has not failed
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
        compiler = None if compiled_for is None else self.compiler
        key = None
        if compiler is not None and compiled_for is not None:
            key = compiler.dependencies.number(compiled_for)
        return self._run(function, episodes, compiler, key)

    def _run(
        self,
        function: Callable[[Episode, EpisodeNorm], Result],
        episodes: Episode,
        compiler: Compiler | None,
        key: Hashable,
    ) -> Iterator[Result]:
        """The results; a try that fails is followed by another way, or by an error."""
        done, device = 0, episodes.support.targets.device
        while done < count(episodes):
            rest = map_tensors(itemgetter(slice(done, None)), episodes) if done else episodes
            how = self.how(rest)
            # as it is written: there is nothing to be tried
            plain = how == "loop" and compiler is None and not self.recomputes()
            kind = (plain, how, key, torch.is_grad_enabled(), *_kind(rest))
            first = not plain and kind not in self._ran
            backward = torch.is_grad_enabled() and how == "vmap" and compiler is None
            trial = Trial(self.network, device, first, backward)
            results = map_episodes(
                function, trial.inputs(rest), how, self.episodes_per_chunk, compiler, key
            )
            for result in results if plain else trial.until_failure(results):
                self._ran.add(kind)
                done += len(flatten(result)[0][0])
                yield result
            if trial.error is not None:
                self._show_own_error(function, rest)
                self._give_up(how, compiler, trial.error)

    def how(self, episodes: Episode) -> How:
        """Loop or vmap.

        What `auto` means is found out once for each kind of device and size of support.
        """
        if self.recompute:
            return "loop"
        if self._loop_only is None and is_pruned(self.network):  # since a callback has pruned it
            self._loop_only = "pruned"  # they lie in the network where a transform ends
        if self._loop_only is not None:
            self._say_loop()
            return "loop"
        if self._failed:
            return "loop"
        if self.parallel != "auto":
            return self.parallel
        # the size is in it because a resumed run meets other episodes first
        kind = _kind(episodes)
        if kind not in self._auto:
            self._auto[kind] = self._faster(episodes)
        return self._auto[kind]

    def _faster(self, episodes: Episode) -> How:
        """What `auto` means for a network that can be vmapped over."""
        try:
            with (
                untouched(self.network, episodes.support.targets.device),
                evaluation_mode(self.body),
            ):
                plain = Episode(*map(unmixed, episodes))
                return choose(self.body, map_tensors(torch.clone, plain), self.probe)
        except Exception:
            return "loop"  # which fails too, or needs no count of operations

    def recomputes(self) -> bool:
        """Whether to recompute inner steps: where a backward pass is to come."""
        return self.recompute and torch.is_grad_enabled()

    def first_time(self, what: str) -> bool:
        """Whether this is asked for the first time."""
        first = what not in self._done
        self._done.add(what)
        return first

    def _show_own_error(
        self, function: Callable[[Episode, EpisodeNorm], Any], episodes: Episode
    ) -> None:
        """Run one episode as it is written.

        What is wrong with a network itself is told by its own error, not by a transform's.
        """
        with untouched(self.network, episodes.support.targets.device):
            one = map_tensors(lambda tensor: tensor[:1].clone(), episodes)
            next(map_episodes(function, one, "loop"))

    def _give_up(self, how: How, compiler: Compiler | None, error: Exception) -> None:
        """Say, once, that the loop is taken from now on.

        Raises:
            FewshotError: it is not what was asked for.
        """
        name, reason = type(self.body).__name__, _reason(error)
        if self.parallel == "auto" and how == "vmap":
            self._failed = True
            rank_zero_info(f"{name} cannot be vmapped over ({reason}): episodes run one by one")
        elif self.recompute:
            raise FewshotError(
                f"checkpoint_inner_steps runs each inner step twice, which {name} does not bear"
                f" ({reason}); set checkpoint_inner_steps: false"
            ) from error
        elif compiler is not None:
            compile = "capture" if compiler.captures else "true"
            raise FewshotError(
                f"compile: {compile} does not work for {name} ({reason}); set compile: false"
            ) from error
        else:
            raise FewshotError(
                f"{name} cannot be vmapped over ({reason}); set episode_parallel: loop"
            ) from error

    def _say_loop(self) -> None:
        """Once: that the loop is taken because of weights that are recurrent or pruned.

        Loudly where vmap was asked for.
        """
        if self.parallel != "loop" and self.first_time("loop"):
            say = rank_zero_warn if self.parallel == "vmap" else rank_zero_info
            say(f"{self._loop_only} weights cannot be vmapped over: episodes run one by one")


def _kind(episodes: Episode) -> tuple[str, int]:
    """What `auto` goes by: the kind of device, and the examples of a support."""
    targets = episodes.support.targets
    return targets.device.type, targets.shape[1]


def _reason(error: Exception) -> str:
    """An error's kind and the beginning of what it says, in one line."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", 100, placeholder=" ...")


def option(name: str) -> Any:
    """An attribute of a learner that is its runner's `name`, to be read and set."""
    return property(
        lambda learner: getattr(learner.runner, name),
        lambda learner, value: setattr(learner.runner, name, value),
    )
