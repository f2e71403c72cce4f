"""Distributions over tasks that episodes are drawn from."""

from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F

from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.episodes.sampling import (
    Index,
    draw_classes,
    draw_episode_of,
    draw_outsiders,
    draw_unequal_episode,
)
from fewshot.episodes.types import Episode, Examples, Inputs, episode, map_tensors, stack
from fewshot.episodes.unbalanced_sampling import draw_unbalanced_episode


class TaskDistribution(Protocol):
    """p(T): a distribution over tasks that episodes are drawn from."""

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode, without the axis B; a function of the generator alone."""

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """The parts of a meta-batch of one episode a generator.

        That is `draw` of each, stacked to one part; or where they differ in size one by one.
        """


@runtime_checkable
class NamedTasks(Protocol):
    """Tasks whose classes have names."""

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The names, by label, of the classes of the episode that this generator draws."""


class Stacked:
    """Mix-in: `draw_many` as the stack of `draw`, for distributions with no faster way."""

    def draw_many(self: TaskDistribution, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """One part of one episode a generator."""
        return [stack([self.draw(rng) for rng in rngs])]


class ClassTasks:
    """N-way K-shot classification tasks over the classes of a dataset.

    Inputs come out as they are stored (images uint8): conversion happens once a meta-batch, on the
    device.

    ```python
    >>> classes = ClassDataset(torch.arange(12).view(12, 1), np.full(4, 3), tuple("abcd"))
    >>> tasks = ClassTasks(classes, way=2, shot=1, queries=2)
    >>> support, query = tasks.draw(np.random.default_rng(0))
    >>> support.inputs.flatten().tolist(), support.targets.tolist()
    ([7, 10], [0, 1])
    >>> query.inputs.flatten().tolist(), query.targets.tolist()
    ([6, 8, 11, 9], [0, 0, 1, 1])
    >>> tasks.class_names(np.random.default_rng(0))
    ('c', 'd')
    ```

    Args:
        dataset: the split's examples by class.
        way: N. shot: K. queries: Q a class.
        unequal_shots: split the N*K support examples at random among the classes, at least 1 for
            each.
        query_alpha: share the N*Q queries out among the classes by a Dirichlet distribution of this
            parameter; None: Q for each.
    """

    def __init__(
        self,
        dataset: ClassDataset,
        way: int,
        shot: int,
        queries: int,
        unequal_shots: bool = False,
        query_alpha: float | None = None,
    ) -> None:
        self.dataset, self.way, self.shot, self.queries = dataset, way, shot, queries
        self.unequal_shots, self.query_alpha = unequal_shots, query_alpha
        self.starts, self.counts = dataset.starts, dataset.counts
        self.labels = torch.arange(way)

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode: support (S, ...), query (N*Q, ...), labels 0..N-1 in blocks."""
        return episode(self._drawn([rng]), 0)

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """One part, with one gather for the support and one for the query."""
        return [self._drawn(rngs)]

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The names of an episode's classes by label: whatever else is drawn, they are first."""
        return tuple(self.dataset.classes[c] for c in self.choose(rng))

    def choose(self, rng: np.random.Generator) -> Index:
        """The places of an episode's classes by label, (N,)."""
        return draw_classes(rng, len(self.counts), self.way)

    def _drawn(self, rngs: Sequence[np.random.Generator]) -> Episode:
        if self.unequal_shots:
            return self._draw_unequal(rngs)
        if self.query_alpha is not None:
            return self._draw_unbalanced(rngs, self.query_alpha)
        rows = [
            draw_episode_of(
                self.choose(rng), rng, self.starts, self.counts, self.shot, self.queries
            )
            for rng in rngs
        ]
        support, query = (np.stack(part).reshape(len(rngs), -1) for part in zip(*rows, strict=True))
        return Episode(self._examples(support, self.shot), self._examples(query, self.queries))

    def _draw_unequal(self, rngs: Sequence[np.random.Generator]) -> Episode:
        drawn = [
            draw_unequal_episode(rng, self.starts, self.counts, self.way, self.shot, self.queries)
            for rng in rngs
        ]
        support, labels, query = (np.stack(part) for part in zip(*drawn, strict=True))
        inputs = gather(self.dataset.inputs, torch.from_numpy(support))
        return Episode(
            Examples(inputs, torch.from_numpy(labels)),
            self._examples(query.reshape(len(rngs), -1), self.queries),
        )

    def _draw_unbalanced(self, rngs: Sequence[np.random.Generator], alpha: float) -> Episode:
        sizes = self.way, self.shot, self.queries, alpha
        drawn = [draw_unbalanced_episode(rng, self.starts, self.counts, *sizes) for rng in rngs]
        support, query, targets = (np.stack(part) for part in zip(*drawn, strict=True))
        inputs = gather(self.dataset.inputs, torch.from_numpy(query))
        return Episode(
            self._examples(support.reshape(len(rngs), -1), self.shot),
            Examples(inputs, torch.from_numpy(targets)),
        )

    def _examples(self, rows: np.ndarray, repeats: int) -> Examples:
        labels = self.labels[:, None].expand(len(rows), -1, repeats)
        labels = labels.clone(memory_format=torch.contiguous_format).flatten(1)
        return Examples(gather(self.dataset.inputs, torch.from_numpy(rows)), labels)


class VaryingTasks:
    """Classification tasks whose ways and shots vary by episode: a meta-batch is a list.

    Args:
        dataset: the split's examples by class.
        draw_rows: from an episode's generator to the rows of its support (S,), their labels (S,)
            and the rows of its queries (N, Q).
    """

    def __init__(
        self,
        dataset: ClassDataset,
        draw_rows: Callable[[np.random.Generator], tuple[np.ndarray, np.ndarray, np.ndarray]],
    ) -> None:
        self.dataset, self.draw_rows = dataset, draw_rows

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode: support (S, ...), query (N*Q, ...), labels 0..N-1 in blocks."""
        return map_tensors(lambda tensor: tensor[0], self._single(rng))

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """One episode a generator, each with B = 1."""
        return [self._single(rng) for rng in rngs]

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The names of an episode's classes by label."""
        _, _, query = self.draw_rows(rng)
        owners = np.searchsorted(self.dataset.starts, query[:, 0], side="right") - 1
        return tuple(self.dataset.classes[c] for c in owners)

    def _single(self, rng: np.random.Generator) -> Episode:
        support, labels, query = self.draw_rows(rng)
        queried = np.arange(len(query)).repeat(query.shape[1])
        rows = torch.from_numpy(np.concatenate([support, query.flatten()]))[None]
        inputs = gather(self.dataset.inputs, rows)  # in one go, which for images on disk is faster
        support_inputs, query_inputs = (
            map_tensors(lambda tensor: tensor[:, part], inputs)  # noqa: B023  # used at once
            for part in (slice(len(support)), slice(len(support), None))
        )
        return Episode(
            Examples(support_inputs, torch.from_numpy(labels)[None]),
            Examples(query_inputs, torch.from_numpy(queried)[None]),
        )


class NotaTasks(ClassTasks):
    """N-way K-shot tasks with queries of other classes, recognised as none of the above: label N.

    The support and the other queries are those of `ClassTasks`; the queries of other classes stand
    behind them.

    Args:
        dataset: the split's examples by class.
        way: N. shot: K. queries: Q a class.
        none_queries: queries of other classes.
    """

    def __init__(
        self, dataset: ClassDataset, way: int, shot: int, queries: int, none_queries: int
    ) -> None:
        super().__init__(dataset, way, shot, queries)
        self.none_queries = none_queries
        self.query_labels = torch.cat(
            [self.labels.repeat_interleave(queries), torch.full((none_queries,), way)]
        )

    def _drawn(self, rngs: Sequence[np.random.Generator]) -> Episode:
        support, query = [], []
        for rng in rngs:
            classes = draw_classes(rng, len(self.counts), self.way)
            support_rows, query_rows = draw_episode_of(
                classes, rng, self.starts, self.counts, self.shot, self.queries
            )
            outsiders = draw_outsiders(rng, self.starts, self.counts, classes, self.none_queries)
            support.append(support_rows.ravel())
            query.append(np.concatenate([query_rows.ravel(), outsiders]))
        inputs = gather(self.dataset.inputs, torch.from_numpy(np.stack(query)))
        labels = self.query_labels.repeat(len(rngs), 1)
        return Episode(self._examples(np.stack(support), self.shot), Examples(inputs, labels))


class FixedTask(Stacked):
    """One task: its support is all of a dataset, its queries all of another with the same classes.

    Args:
        support: K examples of each of the N classes.
        query: the queries.
        none: queries of no class among them: label N.
    """

    def __init__(
        self, support: ClassDataset, query: ClassDataset, none: ClassDataset | None = None
    ) -> None:
        parts = [support, query] if none is None else [support, query, none]
        support_inputs, query_inputs, *none_inputs = _equally_wide([part.inputs for part in parts])
        labels, targets = (
            torch.from_numpy(np.repeat(np.arange(len(p.counts)), p.counts))
            for p in (support, query)
        )
        if none is not None:
            query_inputs = {
                name: torch.cat([values, none_inputs[0][name]])
                for name, values in query_inputs.items()
            }
            targets = torch.cat(
                [targets, torch.full((int(none.counts.sum()),), len(support.classes))]
            )
        self.episode = Episode(Examples(support_inputs, labels), Examples(query_inputs, targets))
        self.names = support.classes

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The names of the classes by label."""
        return self.names

    def draw(self, rng: np.random.Generator) -> Episode:
        """The episode; nothing is drawn."""
        return self.episode


def _equally_wide(parts: Sequence[Inputs | LazyInputs]) -> list[dict[str, torch.Tensor]]:
    """Texts' inputs of several datasets, each tensor's rows padded with 0 to the widest."""
    dicts = [part for part in parts if isinstance(part, dict)]
    assert len(dicts) == len(parts)
    widest = {name: max(part[name].shape[-1] for part in dicts) for name in dicts[0]}
    return [
        {
            name: (
                F.pad(values, (0, widest[name] - values.shape[-1])) if values.dim() > 1 else values
            )
            for name, values in part.items()
        }
        for part in dicts
    ]


def gather(inputs: Inputs | LazyInputs, rows: torch.Tensor) -> Inputs:
    """The rows (B, S) of inputs (n, ...), shape (B, S, ...)."""
    if isinstance(inputs, LazyInputs):
        taken = inputs.take(rows.flatten().numpy())
        return taken.view(*rows.shape, *taken.shape[1:])
    if isinstance(inputs, dict):
        # values are tensors
        return {name: gather(value, rows) for name, value in inputs.items()}  # type: ignore[misc]
    flat = inputs.view(len(inputs), -1)
    # uint8 rows are copied as int64 words where they fit: 4x faster than byte by byte
    words = flat.view(torch.int64) if flat.dtype == torch.uint8 and flat.shape[1] % 8 == 0 else flat
    return words[rows.flatten()].view(inputs.dtype).view(*rows.shape, *inputs.shape[1:])
