"""Which classes and which examples make an episode: pure functions of a random generator."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import FewshotError

Index = NDArray[np.int64]


def check_split(
    name: str,
    classes: Sequence[str],
    counts: Index,
    way: int,
    shot: int,
    queries: int,
    way_prefix: str = "",
    prefix: str = "",
) -> None:
    """Check that a split can fill every episode: enough classes, enough examples in each.

    Args:
        name: the split's name, for the message.
        classes: names of the split's classes.
        counts: examples of each class, shape (classes,).
        way: N.
        shot: K.
        queries: Q.
        way_prefix: what the way's argument starts with in the message (``train_``, ``val_``).
        prefix: the same of the other arguments.

    Raises:
        FewshotError: naming the split and the value, or the first class that has too few examples.
    """
    for argument, value, least in (
        (f"{way_prefix}way", way, 2),
        (f"{prefix}shot", shot, 1),
        (f"{prefix}queries", queries, 1),
    ):
        if value < least:
            raise FewshotError(f"{argument} is {value}; set {argument} >= {least}")
    if len(classes) < way:
        raise FewshotError(
            f"the {name} split has {len(classes)} classes, too few for {way_prefix}way {way};"
            f" set {way_prefix}way <= {len(classes)} or add classes"
        )
    short = np.flatnonzero(counts < shot + queries)
    if len(short):
        have = int(counts[short[0]])
        raise FewshotError(
            f"class {classes[short[0]]!r} of the {name} split has {have} examples, too few for"
            f" {prefix}shot {shot} + {prefix}queries {queries}; set {prefix}shot + {prefix}queries"
            f" <= {have} or add examples"
        )


def draw_classes(rng: np.random.Generator, classes: int, way: int) -> Index:
    """`way` different classes out of `classes`, in random order, shape (N,)."""
    return rng.choice(classes, way, replace=False)


def draw_examples(rng: np.random.Generator, counts: Index, number: int) -> Index:
    """`number` different examples of each class, in random order, shape (N, number).

    Args:
        rng: the episode's generator.
        counts: examples that each of the N classes has, all >= `number`.
        number: K + Q.
    """
    # The order of one random key an example is a uniform permutation; keys past a class's count
    # sort last.
    keys = rng.random((len(counts), int(counts.max())))
    if (counts != keys.shape[1]).any():
        keys[np.arange(keys.shape[1]) >= counts[:, None]] = 2.0
    return keys.argsort(axis=1)[:, :number]


def draw_episode(
    rng: np.random.Generator, starts: Index, counts: Index, way: int, shot: int, queries: int
) -> tuple[Index, Index]:
    """Rows of an N-way K-shot episode, support and query disjoint.

    Args:
        rng: the episode's generator.
        starts: first row of each class, shape (classes,).
        counts: rows of each class, shape (classes,).
        way: N.
        shot: K.
        queries: Q.

    Returns:
        Rows of the support (N, K) and of the query (N, Q); line n of each belongs to the class with
        label n.
    """
    return draw_episode_of(draw_classes(rng, len(counts), way), rng, starts, counts, shot, queries)


def draw_episode_of(
    classes: Index, rng: np.random.Generator, starts: Index, counts: Index, shot: int, queries: int
) -> tuple[Index, Index]:
    """Rows of the support (N, K) and of the query (N, Q) of an episode of these `classes` (N,)."""
    rows = starts[classes, None] + draw_examples(rng, counts[classes], shot + queries)
    return rows[:, :shot], rows[:, shot:]


def draw_outsiders(
    rng: np.random.Generator, starts: Index, counts: Index, classes: Index, number: int
) -> Index:
    """Different rows (`number`,) of classes that are none of an episode's.

    Each such class is equally likely.

    Args:
        rng: the episode's generator.
        starts: first row of each class, shape (classes,).
        counts: rows of each class, shape (classes,), all >= `number`.
        classes: the episode's, shape (N,).
        number: how many.
    """
    other_classes = np.delete(np.arange(len(counts)), classes)
    drawn, times = np.unique(rng.choice(other_classes, number), return_counts=True)
    return np.concatenate(
        [
            starts[c] + rng.choice(counts[c], n, replace=False)
            for c, n in zip(drawn, times, strict=True)
        ]
    )


def draw_shots(rng: np.random.Generator, total: int, limits: Index) -> Index:
    """How many of `total` support examples each class has, from 1 to `limits`, shape (N,).

    Every way to split the total is equally likely; what exceeds a class's limit goes to others,
    class by class.

    Args:
        rng: the episode's generator.
        total: S >= N.
        limits: the most that each of the N classes can give, in all S or more.
    """
    cuts = np.sort(rng.choice(total - 1, len(limits) - 1, replace=False)) + 1
    shots = np.diff(cuts, prepend=0, append=total)
    return within_limits(rng, shots, limits)


def within_limits(rng: np.random.Generator, wanted: Index, limits: Index) -> Index:
    """What each class gives (N,) of what is `wanted` of it: no more than its limit.

    What exceeds it is taken from others, class by class in random order.
    """
    given = np.minimum(wanted, limits)
    excess = int((wanted - given).sum())
    for place in rng.permutation(len(limits)):
        extra = min(excess, int(limits[place] - given[place]))
        given[place] += extra
        excess -= extra
    return given.astype(np.int64)


def draw_varying_episode(
    rng: np.random.Generator,
    starts: Index,
    counts: Index,
    ways: tuple[int, int],
    shots: tuple[int, int],
    queries: int,
) -> tuple[Index, Index, Index]:
    """Rows of an episode whose way and shot are drawn first, uniformly, one shot for all classes.

    Args:
        rng: the episode's generator.
        starts: first row of each class, shape (classes,).
        counts: rows of each class, shape (classes,).
        ways: smallest and largest N.
        shots: smallest and largest K.
        queries: Q.

    Returns:
        As `draw_unequal_episode`.
    """
    way, shot = (int(rng.integers(low, high + 1)) for low, high in (ways, shots))
    support, query = draw_episode(rng, starts, counts, way, shot, queries)
    return support.flatten(), np.repeat(np.arange(way), shot), query


def draw_unequal_episode(
    rng: np.random.Generator, starts: Index, counts: Index, way: int, shot: int, queries: int
) -> tuple[Index, Index, Index]:
    """Rows of an N-way episode with N*K support examples in all, split at random among the classes.

    Args:
        rng: the episode's generator.
        starts: first row of each class, shape (classes,).
        counts: rows of each class, shape (classes,).
        way: N.
        shot: K, support examples a class on average.
        queries: Q, of every class.

    Returns:
        Rows of the support (S,), their labels (S,) in blocks, and query rows (N, Q); no row is in
        both.
    """
    classes = draw_classes(rng, len(counts), way)
    shots = draw_shots(rng, way * shot, counts[classes] - queries)
    return draw_rows(rng, starts, counts, classes, shots, queries)


def draw_rows(
    rng: np.random.Generator,
    starts: Index,
    counts: Index,
    classes: Index,
    shots: Index,
    queries: int,
) -> tuple[Index, Index, Index]:
    """Rows of an episode of these classes, each with a shot of its own.

    Args:
        rng: the episode's generator.
        starts: first row of each class of the split, shape (C,).
        counts: rows of each class of the split, shape (C,).
        classes: the episode's, (N,).
        shots: support examples of each, (N,).
        queries: Q, of every class.

    Returns:
        As `draw_unequal_episode`.
    """
    rows = [
        starts[c] + rng.choice(counts[c], queries + k, replace=False)
        for c, k in zip(classes, shots, strict=True)
    ]
    support = np.concatenate([class_rows[queries:] for class_rows in rows])
    return (
        support,
        np.repeat(np.arange(len(classes)), shots),
        np.stack([class_rows[:queries] for class_rows in rows]),
    )
