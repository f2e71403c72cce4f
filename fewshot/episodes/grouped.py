"""Tasks whose classes are all of one group, such as the ten digits as one domain shows them."""

from collections.abc import Sequence

import numpy as np

from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks
from fewshot.episodes.sampling import Index, draw_classes


class GroupedTasks(ClassTasks):
    """N-way K-shot tasks, each of classes of one group; each group is equally likely.

    Args:
        dataset: the split's examples by class.
        groups: the places of each group's classes, N of them or more.
        way: N. shot: K. queries: Q a class.
        ordered: labels follow the order in the group; otherwise they are drawn for each episode.
    """

    def __init__(
        self,
        dataset: ClassDataset,
        groups: Sequence[Index],
        way: int,
        shot: int,
        queries: int,
        ordered: bool = False,
    ) -> None:
        super().__init__(dataset, way, shot, queries)
        self.groups, self.ordered = groups, ordered

    def choose(self, rng: np.random.Generator) -> Index:
        """A group, and N of its classes."""
        group = self.groups[int(rng.integers(len(self.groups)))]
        drawn = draw_classes(rng, len(group), self.way)
        chosen: Index = group[np.sort(drawn) if self.ordered else drawn]
        return chosen
