"""Ranking episodes: the published protocol on the real files, training without true negatives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.datasets.few_shot_graph import FewShotGraph, Relation, read_graph
from fewshot.datasets.relation_tasks import RelationTasks, evaluation_episode
from fewshot.errors import FewshotError


def graph(
    pairs: list[list[int]], candidates: list[int], tails: dict[int, list[int]]
) -> tuple[FewShotGraph, Relation]:
    relation = Relation("r", np.array(pairs, np.int32), np.array(candidates, np.int32))
    known = {(head, "r"): np.array(found, np.int32) for head, found in tails.items()}
    none = np.empty((0, 3), np.int32)
    return FewShotGraph(none, 10, 0, {"train": [relation]}, known, np.empty(0, np.int32)), relation


def test_other_true_tails_are_removed() -> None:
    made, relation = graph([[0, 5], [1, 6], [1, 7], [2, 8]], [5, 6, 7], {0: [5], 1: [6, 7], 2: [8]})
    episode = evaluation_episode(made, relation, shot=1)
    assert isinstance(episode.support.inputs, dict)
    assert isinstance(episode.query.inputs, dict)
    assert episode.support.inputs["pairs"].tolist() == [[0, 5]]
    assert episode.query.inputs["heads"].tolist() == [1, 1, 2]
    # the right tail is column 0 and counts once, be it among the candidates (6, 7) or not (8)
    assert episode.query.inputs["candidates"].tolist() == [
        [6, 5, -1, -1],
        [7, 5, -1, -1],
        [8, 5, 6, 7],
    ]


def test_training_never_ranks_against_a_true_tail_and_repeats_itself() -> None:
    made, relation = graph([[0, 5], [1, 6], [1, 7], [2, 8]], [5, 6, 7], {0: [5], 1: [6, 7], 2: [8]})
    tasks = RelationTasks(made, [relation], shot=1, queries=3)
    for seed in range(50):
        episode, again = (tasks.draw(np.random.default_rng(seed)) for _ in range(2))
        assert isinstance(episode.query.inputs, dict)
        assert isinstance(again.query.inputs, dict)
        assert torch.equal(episode.query.inputs["candidates"], again.query.inputs["candidates"])
        for head, (right, wrong) in zip(
            episode.query.inputs["heads"].tolist(),
            episode.query.inputs["candidates"].tolist(),
            strict=True,
        ):
            assert right in made.tails[head, "r"]
            assert wrong not in made.tails[head, "r"]


def test_too_few_triples_and_no_wrong_candidates_are_refused() -> None:
    made, relation = graph([[0, 5], [1, 6]], [5, 6], {0: [5, 6], 1: [6]})
    with pytest.raises(FewshotError, match="'r' has 2 triples, but 5 supports and 3 queries"):
        RelationTasks(made, [relation], shot=5, queries=3)
    with pytest.raises(FewshotError, match="every candidate is a true tail of entity 0"):
        RelationTasks(made, [relation], shot=1, queries=1)


def test_the_real_test_relations_are_ranked_as_written_out(shared_data: Path) -> None:
    folder = shared_data / "codex_m_one"
    ids, candidates, tails, tasks = (
        json.loads((folder / name).read_text())
        for name in ("ent2ids", "rel2candidates.json", "e1rel_e2.json", "test_tasks.json")
    )
    made = read_graph(folder)
    for relation in made.tasks["test"]:
        episode = evaluation_episode(made, relation, shot=5)
        assert isinstance(episode.query.inputs, dict)
        rows = episode.query.inputs["candidates"].tolist()
        for (head, name, tail), row in zip(tasks[relation.name][5:], rows, strict=True):
            others = {ids[c] for c in candidates[name] if c not in tails[head + name]}
            assert row[0] == ids[tail]
            assert sorted(c for c in row[1:] if c >= 0) == sorted(others)
