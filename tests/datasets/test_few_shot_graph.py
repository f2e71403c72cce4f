"""The reader of Wiki-One's files: what it reads and refuses; no test relation in training."""

import json
from pathlib import Path
from typing import Any

import pytest

from fewshot.datasets.few_shot_graph import read_graph
from fewshot.errors import FewshotError


def content() -> dict[str, Any]:
    return {
        "ent2ids": {"a": 1, "b": 0, "c": 2},
        "relation2ids": {"near": 0, "near_inv": 1},
        "path_graph": "a\tnear\tb\nb\tnear\tc\n",
        "train_tasks.json": {"r": [["a", "r", "b"], ["a", "r", "c"]]},
        "dev_tasks.json": {"s": [["b", "s", "c"]]},
        "test_tasks.json": {"t": [["c", "t", "a"]]},
        "rel2candidates.json": {"r": ["a", "b", "c"], "s": ["c"], "t": ["a", "b"]},
        "e1rel_e2.json": {"ar": ["b"], "bs": ["a", "c"], "ct": ["a"]},
    }


def written(folder: Path, files: dict[str, Any]) -> Path:
    for name, value in files.items():
        (folder / name).write_text(value if isinstance(value, str) else json.dumps(value))
    return folder


def test_reads_ids_triples_and_tails(tmp_path: Path) -> None:
    graph = read_graph(written(tmp_path, content()))
    assert (graph.entities, graph.relations) == (3, 2)
    assert graph.background.tolist() == [[1, 0, 0], [0, 0, 2]]
    (relation,) = graph.tasks["train"]
    assert (relation.name, relation.pairs.tolist(), relation.candidates.tolist()) == (
        "r",
        [[1, 0], [1, 2]],
        [1, 0, 2],
    )
    # c is a tail of the task's own triples, though e1rel_e2.json lacks it
    assert {key: tails.tolist() for key, tails in graph.tails.items()} == {
        (1, "r"): [0, 2],
        (0, "s"): [1, 2],
        (2, "t"): [1],
    }


@pytest.mark.parametrize(
    ("file", "value", "message"),
    [
        ("path_graph", "a\tnear\tb\na\tnear\tz\n", r"path_graph, line 2: 'z' is not in ent2ids"),
        ("path_graph", "a\tfar\tb\n", r"path_graph, line 1: 'far' is not in relation2ids"),
        ("path_graph", "a near b\n", r"path_graph, line 1: 1 fields"),
        ("ent2ids", {"a": 0, "b": 0, "c": 2}, r"ent2ids: 'b' and 'a' both have the id 0"),
        ("ent2ids", {"a": 0, "b": 1, "c": 3}, r"ent2ids: 'c' has the id 3; the 3 ids must be 0..2"),
        ("ent2ids", '{"a": 0, "b": 1, "b": 2}', r"ent2ids: 'b' stands twice"),
        ("ent2ids", '{"a": 0,\n "b" 1}', r"ent2ids, line 2: not JSON"),
        (
            "test_tasks.json",
            {"t": [["c", "t", "z"]]},
            r"test_tasks.json, relation 't', triple 1: entity 'z'",
        ),
        (
            "test_tasks.json",
            {"t": [["c", "t", "a"]] * 2},
            r"relation 't', triple 2: .* is triple 1 again",
        ),
        (
            "test_tasks.json",
            {"t": [["c", "r", "a"]]},
            r"relation 't', triple 1: \['c', 'r', 'a'\] is no",
        ),
        (
            "test_tasks.json",
            {"r": [["c", "r", "a"]]},
            r"test_tasks.json: relation 'r' is also in train_tasks.json",
        ),
        (
            "relation2ids",
            {"near": 0, "t": 1},
            r"test_tasks.json: relation 't' is also a background relation",
        ),
        (
            "rel2candidates.json",
            {"r": ["a"], "s": ["c"]},
            r"rel2candidates.json: relation 't' of test_tasks.json has no",
        ),
        (
            "rel2candidates.json",
            {"r": ["a", "a"], "s": [], "t": []},
            r"relation 'r': a candidate stands twice",
        ),
    ],
)
def test_what_is_wrong_is_named_in_one_line(
    tmp_path: Path, file: str, value: Any, message: str
) -> None:
    with pytest.raises(FewshotError, match=message) as error:
        read_graph(written(tmp_path, {**content(), file: value}))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("file", list(content()))
def test_a_missing_file_is_named(tmp_path: Path, file: str) -> None:
    (written(tmp_path, content()) / file).unlink()
    with pytest.raises(FewshotError, match=f"{file} is missing"):
        read_graph(tmp_path)


def test_no_test_relation_leaks_into_training(shared_data: Path) -> None:
    folder = shared_data / "codex_m_one"
    graph = read_graph(folder)
    assert {stage: len(tasks) for stage, tasks in graph.tasks.items()} == {
        "train": 14,
        "val": 3,
        "test": 4,
    }
    lines = (folder / "path_graph").read_text().splitlines()
    used = {line.split("\t")[1] for line in lines}
    for stage in ("val", "test"):
        names = {relation.name for relation in graph.tasks[stage]}
        assert not names & used
        assert not names & {relation.name for relation in graph.tasks["train"]}
    assert len(graph.background) == len(lines) == 189_808
