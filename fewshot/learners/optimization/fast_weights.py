"""The network under the fast weights of one episode: its outputs, its losses, its judgement."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from fewshot.engine.inner_loop import Loss, Weights
from fewshot.engine.own_checkpoints import call_with
from fewshot.episodes.types import Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.optimization.network import Network
from fewshot.learners.optimization.outer import Outer
from fewshot.learners.outcome import Outcome

FEATURES = "features"
"""The name of inputs that are features already, made before the episode."""


class FastWeights(MetaLearner):
    """What a learner's network gives under weights that are not its own."""

    network: Network
    head: nn.Module
    head_is_given: bool
    """Whether the head is the user's; else it is one layer of ours."""
    outer: Outer | None
    head_only: bool
    """Whether the head alone adapts, so that the body runs once an episode."""

    def forward_with(self, weights: Weights, inputs: Inputs) -> Tensor:
        """Outputs (n, output_size) of embedded inputs under the fast `weights`."""
        if self.head_only:
            own = {name.removeprefix("head."): weight for name, weight in weights.items()}
            outputs = call_with(self.head, own, inputs)
        else:
            outputs = call_with(self.network, weights, inputs, self.within)
        assert isinstance(outputs, Tensor)
        if self.fixed_way and outputs.shape[1] != self.task.output_size:
            raise FewshotError(
                f"the head {type(self.head).__name__} gives {outputs.shape[1]} outputs, but the"
                f" task needs {self.task.output_size}; give its last layer that many"
            )
        return outputs

    def within(self) -> AbstractContextManager[Any]:
        """What the network is run inside of, each time."""
        return nullcontext()

    def examples_for(self, weights: Weights, examples: Examples, step: int = 0) -> Examples:
        """What the network under fast `weights` learns from in an inner step, or is judged on.

        That is the (embedded) examples as they are; where the task is to act, what comes of it.
        """
        return self.task.experience(examples, functools.partial(self.forward_with, weights), step)

    def support_losses(
        self, support: Examples, fixed: Weights | None = None
    ) -> Callable[[int, Weights], Loss]:
        """The mean loss of each inner step on its examples, beside weights kept `fixed`."""

        def loss(seen: Examples, fast_weights: Weights) -> Tensor:
            outputs = self.forward_with({**(fixed or {}), **fast_weights}, seen.inputs)
            return self.task.support_loss(outputs, seen.targets)

        def loss_of(step: int, weights: Weights) -> Loss:
            seen = self.examples_for({**(fixed or {}), **weights}, support, step)
            return functools.partial(loss, seen)

        return loss_of

    def judged(self, weights: Weights, query: Examples) -> Outcome:
        """The outcome of (embedded) queries under the fast `weights`."""
        query = self.examples_for(weights, query)
        return self._outcome(self.forward_with(weights, query.inputs), query)

    def _outcome(self, outputs: Tensor, query: Examples) -> Outcome:
        loss = self.task.loss if self.outer is None else self.outer.loss(self.task)
        return Outcome(
            loss(outputs, query.targets),
            self.task.metrics(outputs, query.targets),
            self.task.shown(outputs, query),
        )
