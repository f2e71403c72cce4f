"""Few-shot relations as ranking episodes: learn from some pairs, rank the tails of the others.

Inputs are dicts of entity ids: the support's ``pairs`` (K, 2) and a ``wrong`` tail (K,) for the
head of each; the query's ``heads`` (Q,) and ``candidates`` (Q, C), of which -1 is none. The right
candidate is column 0, so that targets are 0. Source: arXiv:1808.09040.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch.utils.data import Dataset

from fewshot.datasets.few_shot_graph import FewShotGraph, Ids, Relation
from fewshot.episodes.distributions import Stacked
from fewshot.episodes.types import Episode, Examples, MetaBatch, as_numbers, stack
from fewshot.errors import FewshotError


def evaluation_episode(
    graph: FewShotGraph, relation: Relation, shot: int, seed: int = 0
) -> Episode:
    """The published protocol's episode: the first `shot` pairs are the support, all others queries.

    Each query's tail is ranked among the relation's candidates without the other true tails of its
    head. The support's wrong tails are drawn by `seed`, and are no true tail of a support pair's
    head.
    """
    queries = relation.pairs[shot:]
    rows = np.full((len(queries), len(relation.candidates) + 1), -1, np.int32)
    rows[:, 0] = queries[:, 1]
    for row, (head, _) in zip(rows, queries.tolist(), strict=True):
        row[1:] = np.where(
            np.isin(relation.candidates, graph.tails[head, relation.name]), -1, relation.candidates
        )
    wrong = wrong_tails(np.random.default_rng(seed), graph, relation, relation.pairs[:shot])
    return _episode(relation.pairs[:shot], wrong, queries, rows)


class EvaluationEpisodes(Dataset[Episode]):
    """The episodes of a stage, one a relation, in the order of the file; they differ in size.

    Raises:
        FewshotError: a relation has no triple beside `shot` supports, or no wrong candidate.
    """

    def __init__(
        self, graph: FewShotGraph, relations: Sequence[Relation], shot: int, seed: int
    ) -> None:
        self.graph, self.relations, self.shot, self.seed = graph, relations, shot, seed
        for relation in relations:
            check_size(relation, shot)
            check_candidates(graph, relation)

    def __getitem__(self, number: int) -> Episode:
        """The episode of relation `number`, without the axis B."""
        return evaluation_episode(self.graph, self.relations[number], self.shot, self.seed)

    def __getitems__(self, numbers: Sequence[int]) -> MetaBatch:
        """These episodes, each with B = 1."""
        return MetaBatch([stack([self[number]]) for number in numbers], as_numbers(numbers))


class RelationTasks(Stacked):
    """Training episodes: a relation, uniformly drawn, `shot` support pairs and `queries` queries.

    A query's tail stands against one candidate that is no true tail of its head.

    Args:
        graph: where the triples are from.
        relations: the relations of the stage.
        shot: support pairs, K.
        queries: query pairs, Q.

    Raises:
        FewshotError: a relation has too few triples, or none of its candidates is a wrong tail of
            one of its heads.
    """

    def __init__(
        self, graph: FewShotGraph, relations: Sequence[Relation], shot: int, queries: int
    ) -> None:
        self.graph, self.relations, self.shot, self.queries = graph, relations, shot, queries
        for relation in relations:
            check_size(relation, shot, queries)
            check_candidates(graph, relation)

    def draw(self, rng: np.random.Generator) -> Episode:
        """One episode, a function of the generator alone."""
        relation = self.relations[int(rng.integers(len(self.relations)))]
        pairs = relation.pairs[
            rng.choice(len(relation.pairs), self.shot + self.queries, replace=False)
        ]
        queries = pairs[self.shot :]
        wrong = wrong_tails(rng, self.graph, relation, pairs)
        candidates = np.stack([queries[:, 1], wrong[self.shot :]], 1)
        return _episode(pairs[: self.shot], wrong[: self.shot], queries, candidates)


def wrong_tails(
    rng: np.random.Generator, graph: FewShotGraph, relation: Relation, pairs: Ids
) -> Ids:
    """For each of `pairs` (n, 2) a candidate (n,) that is no true tail of its head.

    `check_candidates` found one.
    """
    tails = []
    for head in pairs[:, 0].tolist():
        right = graph.tails[head, relation.name]
        while (tail := int(rng.choice(relation.candidates))) in right:
            pass
        tails.append(tail)
    return np.array(tails, np.int32)


def check_candidates(graph: FewShotGraph, relation: Relation) -> None:
    """Check that every head of a relation has a candidate that is no true tail of it.

    Raises:
        FewshotError: one has none.
    """
    for head in dict.fromkeys(relation.pairs[:, 0].tolist()):
        right = graph.tails[head, relation.name]
        if len(right) >= len(relation.candidates) and np.isin(relation.candidates, right).all():
            raise FewshotError(
                f"relation {relation.name!r}: every candidate is a true tail of entity {head}; add"
                " candidates"
            )


def check_size(relation: Relation, shot: int, queries: int = 1) -> None:
    """Check that a relation has triples for `shot` supports and at least so many queries.

    Raises:
        FewshotError: it has fewer.
    """
    if len(relation.pairs) < shot + queries:
        raise FewshotError(
            f"relation {relation.name!r} has {len(relation.pairs)} triples, but {shot} supports and"
            f" {queries} queries are asked for; lower shot or queries"
        )


def _episode(support: Ids, wrong: Ids, queries: Ids, candidates: Ids) -> Episode:
    arrays = (support, wrong, queries[:, 0], candidates)
    pairs, against, heads, rows = (torch.from_numpy(array.astype(np.int64)) for array in arrays)
    return Episode(
        Examples({"pairs": pairs, "wrong": against}, pairs.new_zeros(len(pairs))),
        Examples({"heads": heads, "candidates": rows}, heads.new_zeros(len(heads))),
    )


def background_relations(graph: FewShotGraph, least: int) -> FewShotGraph:
    """The background graph's relations with enough triples as training relations (`BG:In-Train`).

    A relation's candidates are its tails. Those all of whose tails are true of one head are left
    out.
    """
    relations: list[Relation] = []
    tails: dict[tuple[int, str], Ids] = {}
    for number in np.unique(graph.background[:, 1]).tolist():
        pairs = np.unique(graph.background[graph.background[:, 1] == number][:, [0, 2]], axis=0)
        name = f"background {number}"
        heads, starts = np.unique(pairs[:, 0], return_index=True)
        groups = np.split(pairs[:, 1], starts[1:])
        candidates = np.unique(pairs[:, 1])
        if len(pairs) >= least and max(map(len, groups)) < len(candidates):
            relations.append(Relation(name, pairs, candidates))
            tails |= {
                (head, name): group for head, group in zip(heads.tolist(), groups, strict=True)
            }
    return replace(
        graph, tasks={"train": [*graph.tasks["train"], *relations]}, tails=graph.tails | tails
    )
