"""Which rows make an episode whose queries are not balanced over the classes (arXiv:2204.11181)."""

import numpy as np

from fewshot.episodes.sampling import Index, draw_classes, within_limits


def draw_query_counts(rng: np.random.Generator, alpha: float, total: int, limits: Index) -> Index:
    """How many of `total` queries each class has, possibly none, shape (N,).

    The classes' shares are drawn from a symmetric Dirichlet distribution (arXiv:2204.11181) and
    rounded to whole queries, those with the largest remainders up; what exceeds a class's limit
    goes to others, class by class.

    Args:
        rng: the episode's generator.
        alpha: of the distribution: 1 has all shares equally likely, large ones near balance.
        total: N*Q.
        limits: the most that each of the N classes can give, in all `total` or more.
    """
    exact = total * rng.dirichlet(np.full(len(limits), alpha))
    counts = np.floor(exact).astype(np.int64)
    up = np.argsort(counts - exact, kind="stable")[: total - counts.sum()]
    counts[up] += 1
    return within_limits(rng, counts, limits)


def draw_unbalanced_episode(
    rng: np.random.Generator,
    starts: Index,
    counts: Index,
    way: int,
    shot: int,
    queries: int,
    alpha: float,
) -> tuple[Index, Index, Index]:
    """Rows of an N-way K-shot episode with N*Q queries in all, unbalanced over the classes.

    Args:
        rng: the episode's generator.
        starts: first row of each class, shape (classes,).
        counts: rows of each class, shape (classes,).
        way: N.
        shot: K.
        queries: Q, of a class on average.
        alpha: see `draw_query_counts`.

    Returns:
        Rows of the support (N, K), of the query (N*Q,), and the queries' labels (N*Q,) in blocks.
    """
    classes = draw_classes(rng, len(counts), way)
    sizes = draw_query_counts(rng, alpha, way * queries, counts[classes] - shot)
    rows = [
        starts[c] + rng.choice(counts[c], shot + size, replace=False)
        for c, size in zip(classes, sizes, strict=True)
    ]
    support = np.stack([class_rows[:shot] for class_rows in rows])
    query = np.concatenate([class_rows[shot:] for class_rows in rows])
    return support, query, np.repeat(np.arange(way), sizes)
