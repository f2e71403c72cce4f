"""Results by class: how often each is told, and what it is taken for."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fewshot.tasks.estimates import Estimate
from fewshot.tasks.intervals import LEAST, t95

if TYPE_CHECKING:  # imported where a picture is drawn
    from matplotlib.figure import Figure

NONE = "none of the above"
DRAWN = 20  # classes of a picture
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class ClassResults:
    """What became of the queries of each class.

    Args:
        names: of the classes, in alphabetical order; queries of none come last.
        accuracy: the share of each class's queries that were told, with its interval over the
            episodes in which it has queries; unknown (NaN) where it has none.
        episodes: in how many episodes each has queries.
        queries: how many queries each has.
        taken: which class was taken for which, and how often: places of both among `names`, and
            numbers, (P,) each; of pairs that occur, by the first and then the second.
    """

    names: tuple[str, ...]
    accuracy: tuple[Estimate, ...]
    episodes: tuple[int, ...]
    queries: tuple[int, ...]
    taken: tuple[Numbers, Numbers, Numbers]

    def table(self) -> list[tuple[str, float, float, int, int]]:
        """Of each class the name, accuracy, interval, episodes and queries; lowest first."""
        columns = zip(self.names, self.accuracy, self.episodes, self.queries, strict=True)
        rows = [(name, *of, episodes, queries) for name, of, episodes, queries in columns]
        return sorted(rows, key=lambda row: (math.isnan(row[1]), row[1]))

    def confusion(self) -> list[tuple[str, str, int, float]]:
        """Of each pair that occurs the class, what it was taken for, the queries and their share.

        A class's most frequent answer comes first.
        """
        order = np.lexsort((-self.taken[2], self.taken[0]))
        rows = zip(*(column[order].tolist() for column in self.taken), strict=True)
        return [
            (self.names[of], self.names[given], number, round(number / self.queries[of], 6))
            for of, given, number in rows
        ]

    def picture(self) -> "Figure":
        """The shares as a matrix; of many classes, those that are told least."""
        from fewshot.tasks.drawing.confusion import draw_confusion

        means = [accuracy.mean for accuracy in self.accuracy]
        lowest = sorted(np.argsort(means, kind="stable")[:DRAWN].tolist())
        places = np.full(len(self.names), -1)
        places[lowest] = np.arange(len(lowest))
        shares = np.zeros((len(lowest), len(lowest)))
        of, given, numbers = self.taken
        inside = (places[of] >= 0) & (places[given] >= 0)
        shares[places[of[inside]], places[given[inside]]] = numbers[inside]
        shares /= np.maximum(self.queries, 1)[lowest, None]
        return draw_confusion([self.names[place] for place in lowest], shares, len(self.names))


def class_results(answers: Numbers, classes: Mapping[int, Sequence[str]]) -> ClassResults:
    """What became of the queries of each class.

    Args:
        answers: of each query the number of its episode, its label and its answer, (Q, 3); a label
            or an answer past an episode's classes is none of them, a query of label -1 is left out.
        classes: the names of each episode's classes, by its number.
    """
    answers = answers[answers[:, 1] >= 0]
    names = sorted({name for of in classes.values() for name in of})
    numbers, place = np.unique(answers[:, 0], return_inverse=True)
    rows = [classes[number] for number in numbers.tolist()]
    widest = max(map(len, rows))
    if (answers[:, 1:] >= np.array([len(of) for of in rows])[place, None]).any():
        names.append(NONE)
    known = {name: i for i, name in enumerate(names)}
    table = np.full((len(rows), widest + 1), len(names) - 1)
    for row, of in zip(table, rows, strict=True):
        row[: len(of)] = [known[name] for name in of]
    true, given = (table[place, np.minimum(answers[:, i], widest)] for i in (1, 2))
    queries = np.bincount(true, minlength=len(names))
    accuracy, episodes = _by_episode(place * len(names) + true, true == given, len(names))
    pairs, times = np.unique(true * len(names) + given, return_counts=True)
    return ClassResults(
        tuple(names),
        tuple(accuracy),
        tuple(episodes.tolist()),
        tuple(queries.tolist()),
        (pairs // len(names), pairs % len(names), times),
    )


def _by_episode(
    keys: Numbers, right: NDArray[np.bool_], number: int
) -> tuple[list[Estimate], Numbers]:
    """The mean of each class's accuracies in its episodes, with t s / sqrt(n).

    Args:
        keys: of each query ``episode * number + class``, (Q,).
        right: whether it was told.
        number: how many classes there are.
    """
    met, which, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    values, of = np.bincount(which, right) / sizes, met % number
    episodes = np.bincount(of, minlength=number)
    with np.errstate(invalid="ignore", divide="ignore"):  # of classes without queries
        means = np.bincount(of, values, number) / episodes
        squares = np.bincount(of, (values - means[of]) ** 2, number)
        deviations = np.sqrt(squares / (episodes - 1) / episodes)
    return [
        Estimate(mean, t95(n - 1) * deviation if n >= LEAST else math.nan)
        for mean, deviation, n in zip(
            means.tolist(), deviations.tolist(), episodes.tolist(), strict=True
        )
    ], episodes
