"""Episodes that are listed, not drawn: published ones, or a list that several papers test on."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from fewshot.episodes.streams import STAGES, EpisodeStream
from fewshot.episodes.types import (
    Episode,
    Examples,
    Inputs,
    MetaBatch,
    as_numbers,
    flatten,
    map_tensors,
    stack,
)


class ListedExamples(NamedTuple):
    """What examples are made of, such as image files or texts, and their labels 0..N-1."""

    items: Sequence[Any]
    labels: Sequence[int]


class ListedEpisode(NamedTuple):
    """An episode as a list has it; each class has support, and perhaps a name."""

    support: ListedExamples
    query: ListedExamples
    names: tuple[str, ...] | None = None

    @property
    def way(self) -> int:
        """N, the classes of the support."""
        return max(self.support.labels) + 1

    def sizes(self, part: ListedExamples) -> list[int]:
        """How many examples of each class are in the support or the query, (N,)."""
        return [list(part.labels).count(label) for label in range(self.way)]


class ListedStream(EpisodeStream):
    """The test episodes of a list, by number; nothing is drawn.

    The inputs of an episode are made when it is asked for, so that workers share the reading.

    Args:
        episodes: the list.
        inputs: makes inputs (n, ...) of n items.
    """

    def __init__(
        self, episodes: Sequence[ListedEpisode], inputs: Callable[[Sequence[Any]], Inputs]
    ) -> None:
        self.episodes, self.inputs, self.stage = episodes, inputs, STAGES.index("test")

    def __getitem__(self, number: int) -> Episode:
        """Episode `number`, without the axis B."""
        support, query, _ = self.episodes[number]
        inputs = self.inputs([*support.items, *query.items])  # in one go: texts of one width
        first, rest = (
            map_tensors(lambda tensor: tensor[rows], inputs)  # noqa: B023  # used at once
            for rows in (slice(len(support.items)), slice(len(support.items), None))
        )
        return Episode(
            Examples(first, torch.tensor(support.labels)),
            Examples(rest, torch.tensor(query.labels)),
        )

    def class_names(self, number: int) -> tuple[str, ...] | None:
        """The names of the classes of episode `number` by label; None where they have none."""
        return self.episodes[number].names

    def __getitems__(self, numbers: Sequence[int]) -> MetaBatch:
        """The meta-batch of these episodes: stacked where they are of one size, else one by one."""
        episodes = [self[number] for number in numbers]
        shapes = {tuple(tensor.shape for tensor in flatten(one)[0]) for one in episodes}
        alike = [episodes] if len(shapes) == 1 else [[one] for one in episodes]
        return MetaBatch([stack(part) for part in alike], as_numbers(numbers))
