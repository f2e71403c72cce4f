"""The neighbours of each entity in a background graph. Source: arXiv:1808.09040.

Shapes: t triples, E entities, n neighbours of all entities together.
"""

import numpy as np
from numpy.typing import NDArray

from fewshot.datasets.few_shot_graph import Ids
from fewshot.datasets.reading.downloads import Arrays


def neighbours(background: Ids, inverses: Ids, entities: int, most: int) -> Arrays:
    """Each entity's neighbours: ``starts`` (E + 1,) int64 and ``edges`` (n, 2) int32.

    An edge holds the relation and the entity of a neighbour.

    Those of entity e are the rows ``starts[e]`` to ``starts[e + 1]``, in the order of the file: a
    triple makes its tail a neighbour of its head, and its head one of its tail by the inverse
    relation.

    Args:
        background: triples (t, 3) of head, relation and tail.
        inverses: the inverse of each relation.
        entities: E.
        most: how many neighbours of an entity are kept, the first of them.
    """
    heads, relations, tails = background.T
    of = np.stack([heads, tails], 1).ravel()
    edges = np.stack([relations, tails, inverses[relations], heads], 1).reshape(-1, 2)
    order = np.argsort(of, kind="stable")
    of, edges = of[order], edges[order]
    starts: NDArray[np.int64] = np.searchsorted(of, np.arange(entities + 1))
    kept = np.arange(len(of)) - starts[of] < most
    sizes = np.minimum(np.diff(starts), most)
    return {
        "starts": np.concatenate([[0], np.cumsum(sizes)]),
        "edges": edges[kept].astype(np.int32),
    }
