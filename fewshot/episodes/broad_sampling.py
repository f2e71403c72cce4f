"""Meta-Dataset's episodes: any way, any shot, unequal shots (arXiv:1903.03096, section 3).

Pure functions of a random generator. N is the way, C the classes of a split, S the size of the
support.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fewshot.episodes.sampling import Index, draw_rows
from fewshot.errors import FewshotError

MIN_WAYS, MAX_WAYS = 5, 50
MAX_LEAVES = 392  # of a node of ImageNet's hierarchy that episodes are drawn from
MAX_QUERIES = 10  # a class
MAX_SUPPORT = 500
MAX_CONTRIBUTION = 100  # of a class to the size of the support
LOG_WEIGHTS = math.log(0.5), math.log(2.0)


class Groups(NamedTuple):
    """Sets of classes; the classes of an episode come from one, each as likely as the others.

    Args:
        members: places of the classes of each group; of a flat source all classes in one, of
            Omniglot an alphabet's, of ImageNet the leaves below a node.
        whole: an episode has all classes of its group, or of a large one 50; otherwise its way is
            uniform from 5 on.
    """

    members: Sequence[Index]
    whole: bool = False


def check_groups(source: str, groups: Groups) -> None:
    """Check that every group can fill an episode.

    Raises:
        FewshotError: there is none, or one has too few classes.
    """
    fewest = min((len(members) for members in groups.members), default=0)
    if fewest < MIN_WAYS:
        raise FewshotError(
            f"{source} has a set of {fewest} classes to draw an episode from, which needs"
            f" {MIN_WAYS}; leave the source out, or complete it"
        )


def draw_group_classes(rng: np.random.Generator, groups: Groups) -> Index:
    """The classes of an episode, in random order, (N,)."""
    members = groups.members[int(rng.integers(len(groups.members)))]
    most = min(MAX_WAYS, len(members))
    way = most if groups.whole else int(rng.integers(MIN_WAYS, most + 1))
    return rng.choice(members, way, replace=False)


def draw_sizes(rng: np.random.Generator, counts: Index) -> tuple[int, Index]:
    """How many queries each class of an episode has, and how many support examples, (N,).

    Args:
        rng: the episode's generator.
        counts: examples of each class, (N,), each 2 or more.
    """
    queries = min(MAX_QUERIES, int(counts.min()) // 2)
    left = counts - queries
    share = 1 - rng.random()  # in (0, 1]
    support = min(MAX_SUPPORT, int(np.ceil(share * np.minimum(MAX_CONTRIBUTION, left)).sum()))
    weights = np.exp(rng.uniform(*LOG_WEIGHTS, len(counts))) * counts
    shots = np.floor(weights / weights.sum() * (support - len(counts))).astype(np.int64) + 1
    return queries, np.minimum(shots, left)


def draw_broad_episode(
    rng: np.random.Generator, starts: Index, counts: Index, groups: Groups
) -> tuple[Index, Index, Index]:
    """Rows of an episode of Meta-Dataset.

    Args:
        rng: the episode's generator.
        starts: first row of each class, (C,).
        counts: rows of each class, (C,).
        groups: which classes go together.

    Returns:
        Rows of the support (S,), their labels (S,) in blocks, and query rows (N, Q); no row is in
        both. The examples of a class are drawn from all of it, so that similar ones which are
        stored side by side are no trap.
    """
    classes = draw_group_classes(rng, groups)
    queries, shots = draw_sizes(rng, counts[classes])
    return draw_rows(rng, starts, counts, classes, shots, queries)
