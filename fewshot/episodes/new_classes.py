"""Further training classes made of those there are: turned images, and mixes of two classes.

Shapes: n images, C channels, H height, W width, B episodes, N way, K shot, Q queries a class.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from fewshot.episodes.class_dataset import ClassDataset, LazyInputs
from fewshot.episodes.distributions import ClassTasks, gather
from fewshot.episodes.sampling import Index, draw_classes, draw_examples
from fewshot.episodes.types import Episode, Examples, Inputs

TURNS = 4
"""Quarter turns of a class, none included."""


class TurnedImages(LazyInputs):
    """Images, each as often as it is asked for by a quarter turn; nothing is held twice.

    Args:
        images: uint8 (m, C, H, W), H = W.
        rows: which of them each is, (n,).
        turns: quarter turns of each, counter-clockwise, (n,).
    """

    def __init__(self, images: Tensor | LazyInputs, rows: Index, turns: Index) -> None:
        self.images, self.rows, self.turns = images, rows, turns

    def __len__(self) -> int:
        """How many there are."""
        return len(self.rows)

    def take(self, rows: Index) -> Tensor:
        """The images (n, C, H, W), turned."""
        taken = gather(self.images, torch.from_numpy(self.rows[rows]))
        assert isinstance(taken, Tensor)
        turns = torch.from_numpy(self.turns[rows])
        for turn in range(1, TURNS):
            if (mine := turns == turn).any():
                taken[mine] = taken[mine].rot90(turn, (-2, -1))
        return taken

    def select(self, rows: Index) -> Self:
        """These alone."""
        return type(self)(self.images, self.rows[rows], self.turns[rows])


def with_turned_classes(dataset: ClassDataset) -> ClassDataset:
    """Each class, then the same turned by 90, 180 and 270 degrees as classes of their own.

    Task augmentation by rotating (arXiv:2003.00804).
    """
    images = dataset.inputs
    assert not isinstance(images, dict)
    spans = zip(dataset.starts, dataset.counts, strict=True)
    rows = np.concatenate([np.tile(np.arange(s, s + n), TURNS) for s, n in spans])
    counts = dataset.counts.repeat(TURNS)
    turns = np.tile(np.arange(TURNS), len(dataset.counts)).repeat(counts)
    names = tuple(f"{name}/rot{90 * turn:03d}" for name in dataset.classes for turn in range(TURNS))
    return ClassDataset(TurnedImages(images, rows, turns), counts, names)


class MixedClassTasks(ClassTasks):
    """N-way K-shot tasks, some of whose classes are mixes of two classes of the dataset.

    Each class of an episode is, with probability `share`, a pair of classes, all pairs equally
    likely; else a class as it is. An image of a pair is the mean of an image of each, and none is
    in two (task augmentation by mixing classes, arXiv:2010.07092; the authors' code draws the
    weights of the two).

    Args:
        dataset: the split's examples by class; images uint8.
        way: N. shot: K. queries: Q a class.
        share: how likely a class is a mix.
    """

    def __init__(
        self, dataset: ClassDataset, way: int, shot: int, queries: int, share: float
    ) -> None:
        super().__init__(dataset, way, shot, queries)
        self.share = share

    def choose_pairs(self, rng: np.random.Generator) -> Index:
        """The places of the two classes of each class of an episode, (N, 2): alike of a plain one.

        No class and no pair comes twice.
        """
        number = len(self.counts)
        mixed = rng.random(self.way) < self.share
        # no more pairs than there are: two classes have one
        mixed &= np.cumsum(mixed) <= number * (number - 1) // 2
        chosen = np.empty((self.way, 2), np.int64)
        chosen[~mixed] = draw_classes(rng, number, int((~mixed).sum()))[:, None]
        places = draw_classes(rng, number * (number - 1) // 2, int(mixed.sum()))
        chosen[mixed] = pairs_at(places)
        return chosen

    def class_names(self, rng: np.random.Generator) -> tuple[str, ...]:
        """The names of an episode's classes by label."""
        names = self.dataset.classes
        return tuple(
            names[a] if a == b else f"{names[a]} + {names[b]}" for a, b in self.choose_pairs(rng)
        )

    def _drawn(self, rngs: Sequence[np.random.Generator]) -> Episode:
        drawn = [self._rows(rng) for rng in rngs]  # each (N, K + Q, 2)
        rows = np.stack(drawn)
        support, query = rows[:, :, : self.shot], rows[:, :, self.shot :]
        return Episode(self._mixed(support, self.shot), self._mixed(query, self.queries))

    def _rows(self, rng: np.random.Generator) -> Index:
        pairs, number = self.choose_pairs(rng), self.shot + self.queries
        one, other = (
            self.starts[of, None] + draw_examples(rng, self.counts[of], number) for of in pairs.T
        )
        other[pairs[:, 0] == pairs[:, 1]] = one[pairs[:, 0] == pairs[:, 1]]
        return np.stack([one, other], -1)

    def _mixed(self, rows: Index, repeats: int) -> Examples:
        """The examples at rows (B, N, repeats, 2)."""
        one, other = np.moveaxis(rows.reshape(len(rows), -1, 2), -1, 0)
        examples = self._examples(one, repeats)
        second = gather(self.dataset.inputs, torch.from_numpy(np.ascontiguousarray(other)))
        return examples._replace(inputs=_mean(examples.inputs, second))


def pairs_at(places: Index) -> Index:
    """The pairs (n, 2) at these places (n,) of the list (1, 0), (2, 0), (2, 1), (3, 0), ...

    >>> pairs_at(np.arange(4)).tolist()
    [[1, 0], [2, 0], [2, 1], [3, 0]]
    """
    larger = ((1 + np.sqrt(8 * places + 1)) / 2).astype(np.int64)
    return np.stack([larger, places - larger * (larger - 1) // 2], -1)


def _mean(one: Inputs, other: Inputs) -> Tensor:
    """The mean of images uint8, rounded up."""
    assert isinstance(one, Tensor)
    assert isinstance(other, Tensor)
    return ((one.to(torch.int16) + other + 1) // 2).to(torch.uint8)
