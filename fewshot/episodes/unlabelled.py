"""Tasks made of unlabelled examples: each is a class of its own."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.episodes.distributions import gather
from fewshot.episodes.sampling import draw_classes
from fewshot.episodes.types import Episode, Examples, Inputs, episode, map_tensors

Change: TypeAlias = Callable[[Inputs, Sequence[np.random.Generator]], Inputs]
"""From inputs (B, n, ...) to other views of them; what is drawn comes from B generators."""


def size_of(inputs: Inputs | LazyInputs) -> int:
    """How many inputs there are."""
    return len(next(iter(inputs.values())) if isinstance(inputs, dict) else inputs)


def as_classes(inputs: Inputs | LazyInputs) -> ClassDataset:
    """N inputs as N classes of one example each."""
    number = size_of(inputs)
    names = tuple(f"example {row}" for row in range(number))
    return ClassDataset(inputs, np.ones(number, np.int64), names)


class SelfLabelledTasks:
    """UMTRA's tasks (arXiv:1811.11819): N examples are N classes, the queries other views of each.

    With many examples of many unknown classes, two of N are seldom of one class. The first shot of
    a class is the example itself unless `change_support` says otherwise; further ones are views.

    Args:
        dataset: the examples, one a class.
        way: N. shot: K. queries: Q a class.
        change: makes the views.
        change_support: makes those of the support; None: the example, then `change`.
    """

    def __init__(
        self,
        dataset: ClassDataset,
        way: int,
        shot: int,
        queries: int,
        change: Change,
        change_support: Change | None = None,
    ) -> None:
        self.dataset, self.way, self.shot, self.queries = dataset, way, shot, queries
        self.change, self.change_support = change, change_support

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode: support (N*K, ...), query (N*Q, ...), labels 0..N-1 in blocks."""
        return episode(self.draw_many([rng])[0], 0)

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """One part of one episode a generator."""
        rows = np.stack([draw_classes(rng, len(self.dataset.counts), self.way) for rng in rngs])
        inputs = gather(self.dataset.inputs, torch.from_numpy(rows))
        support = self._copies(inputs, self.shot)
        if self.change_support is not None:
            support = self.change_support(support, rngs)
        elif self.shot > 1:
            changed = self.change(self._copies(inputs, self.shot - 1), rngs)
            support = _interleaved(inputs, changed, self.shot)
        query = self.change(self._copies(inputs, self.queries), rngs)
        return [Episode(*map(self._labelled, (support, query), (self.shot, self.queries)))]

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """Which example each label is."""
        drawn = draw_classes(rng, len(self.dataset.counts), self.way)
        return tuple(self.dataset.classes[c] for c in drawn)

    def _copies(self, inputs: Inputs, number: int) -> Inputs:
        return map_tensors(lambda tensor: tensor.repeat_interleave(number, 1), inputs)

    def _labelled(self, inputs: Inputs, repeats: int) -> Examples:
        some = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
        labels = torch.arange(self.way).repeat_interleave(repeats)
        return Examples(inputs, labels.repeat(len(some), 1))


def _interleaved(inputs: Inputs, changed: Inputs, shot: int) -> Inputs:
    """Each of N inputs (B, N, ...), then its K-1 views (B, N*(K-1), ...): (B, N*K, ...)."""
    if isinstance(inputs, dict):
        assert isinstance(changed, dict)
        return {name: _of_class(value, changed[name], shot) for name, value in inputs.items()}
    assert isinstance(changed, torch.Tensor)
    return _of_class(inputs, changed, shot)


def _of_class(first: torch.Tensor, others: torch.Tensor, shot: int) -> torch.Tensor:
    views = others.view(len(others), first.shape[1], shot - 1, *others.shape[2:])
    return torch.cat([first[:, :, None], views], 2).flatten(1, 2)
