"""Few-shot relations as ranking episodes: some pairs of a relation to learn from, the tails of the others to rank.

Inputs are dicts of entity ids: the support's ``pairs`` (K, 2), the query's ``heads`` (Q,) and ``candidates`` (Q, C), of
which -1 is none. The right candidate is column 0, so that targets are 0. Source: arXiv:1808.09040.
"""

from collections.abc import Sequence

import numpy as np
import torch

from fewshot.datasets.few_shot_graph import FewShotGraph, Ids, Relation
from fewshot.episodes import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.loading import Stacked


def evaluation_episode(graph: FewShotGraph, relation: Relation, shot: int) -> Episode:
    """The published protocol's episode: the first `shot` pairs are the support, all others queries.

    Each query's tail is ranked among the relation's candidates without the other true tails of its head.
    """
    queries = relation.pairs[shot:]
    rows = np.full((len(queries), len(relation.candidates) + 1), -1, np.int32)
    rows[:, 0] = queries[:, 1]
    for row, (head, _) in zip(rows, queries.tolist(), strict=True):
        row[1:] = np.where(np.isin(relation.candidates, graph.tails[head, relation.name]), -1, relation.candidates)
    return _episode(relation.pairs[:shot], queries, rows)


class RelationTasks(Stacked):
    """Training episodes: a relation, each as likely as the others, with `shot` support pairs and `queries` queries.

    A query's tail stands against one candidate that is no true tail of its head.

    Args:
        graph: where the triples are from.
        relations: the relations of the stage.
        shot: support pairs, K.
        queries: query pairs, Q.

    Raises:
        FewshotError: a relation has too few triples, or none of its candidates is a wrong tail of one of its heads.
    """

    def __init__(self, graph: FewShotGraph, relations: Sequence[Relation], shot: int, queries: int) -> None:
        self.graph, self.relations, self.shot, self.queries = graph, relations, shot, queries
        for relation in relations:
            check_size(relation, shot, queries)
            for head in dict.fromkeys(relation.pairs[:, 0].tolist()):
                if np.isin(relation.candidates, graph.tails[head, relation.name]).all():
                    raise FewshotError(
                        f"relation {relation.name!r}: every candidate is a true tail of entity {head}; add candidates"
                    )

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode, a function of the generator alone."""
        relation = self.relations[int(rng.integers(len(self.relations)))]
        pairs = relation.pairs[rng.choice(len(relation.pairs), self.shot + self.queries, replace=False)]
        queries = pairs[self.shot :]
        wrong = [self._wrong_tail(rng, relation, head) for head in queries[:, 0].tolist()]
        return _episode(pairs[: self.shot], queries, np.stack([queries[:, 1], np.array(wrong, np.int32)], 1))

    def _wrong_tail(self, rng: np.random.Generator, relation: Relation, head: int) -> int:
        right = self.graph.tails[head, relation.name]
        while (tail := int(rng.choice(relation.candidates))) in right:
            pass  # ends: the constructor found a wrong candidate for every head
        return tail


def check_size(relation: Relation, shot: int, queries: int = 1) -> None:
    """Check that a relation has triples for `shot` supports and at least so many queries.

    Raises:
        FewshotError: it has fewer.
    """
    if len(relation.pairs) < shot + queries:
        raise FewshotError(
            f"relation {relation.name!r} has {len(relation.pairs)} triples, but {shot} supports and {queries} queries"
            " are asked for; lower shot or queries"
        )


def _episode(support: Ids, queries: Ids, candidates: Ids) -> Episode:
    pairs, heads, rows = (torch.from_numpy(a.astype(np.int64)) for a in (support, queries[:, 0], candidates))
    return Episode(
        Examples({"pairs": pairs}, pairs.new_zeros(len(pairs))),
        Examples({"heads": heads, "candidates": rows}, heads.new_zeros(len(heads))),
    )
