"""Labels that always mean the same classes: training tasks that one function answers."""

from collections.abc import Sequence

import numpy as np

from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import ClassTasks
from fewshot.episodes.sampling import Index
from fewshot.errors import FewshotError


def label_groups(seed: int, classes: int, way: int) -> list[Index]:
    """The classes (places among `classes`) that each of `way` labels may mean, cut by the seed.

    Raises:
        FewshotError: there are fewer than two for some label, so that nothing would differ.
    """
    if classes < 2 * way:
        raise FewshotError(
            f"label_assignment is fixed, for which each of the {way} labels needs two training"
            f" classes, but there are {classes}; set train_way <= {classes // 2} or add classes"
        )
    # the place behind the stages and the orders of plain examples: no episode has this generator
    order = np.random.default_rng([seed, 4]).permutation(classes)
    return [np.sort(order[label::way]) for label in range(way)]


class FixedLabelTasks(ClassTasks):
    """N-way K-shot tasks whose label n always means a class of group n: not mutually exclusive.

    One function answers the queries of all of them, without their supports (arXiv:1912.03820).

    Args:
        dataset: the split's examples by class.
        shot: K. queries: Q a class.
        groups: the places of the classes of each label, (N, ...).
    """

    def __init__(
        self, dataset: ClassDataset, shot: int, queries: int, groups: Sequence[np.ndarray]
    ) -> None:
        super().__init__(dataset, len(groups), shot, queries)
        self.groups = groups

    def choose(self, rng: np.random.Generator) -> Index:
        """A class of each label's group."""
        return np.array([group[rng.integers(len(group))] for group in self.groups])
