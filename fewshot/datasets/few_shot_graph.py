"""Knowledge graphs with few-shot relations, in the files of Wiki-One and NELL-One.

Source: arXiv:1808.09040.

``path_graph`` is the background graph, a triple a line; ``{train,dev,test}_tasks.json`` hold the
triples of each task relation, ``rel2candidates.json`` the entities that its tails are ranked among,
``e1rel_e2.json`` all true tails of a head and a relation, ``ent2ids`` and ``relation2ids`` the
numbers of entities and background relations.
"""

import json
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot.errors import FewshotError

Ids = NDArray[np.int32]
REMEDY = (
    "set root to a folder with the files of Wiki-One or NELL-One, which are linked at"
    " github.com/xwhan/One-shot-Relational-Learning (no licence is stated; Wikidata's facts are"
    " CC0)"
)


class Relation(NamedTuple):
    """A task relation: triples as (head, tail) ids (n, 2) in file order, candidates' ids (c,)."""

    name: str
    pairs: Ids
    candidates: Ids


@dataclass(frozen=True)
class FewShotGraph:
    """A background graph and the task relations of train, val and test.

    Args:
        background: triples (t, 3) of head, background relation and tail ids.
        entities: how many entities there are. relations: how many background relations, inverses
            included.
        tasks: the relations of each stage.
        tails: the true tails of a head id and a task relation, by ``(head, relation)``.
        inverses: the inverse of each background relation (R,), which has its name and ``_inv``; -1
            where there is none.
    """

    FILES: ClassVar[dict[str, str]] = {
        "train": "train_tasks.json",
        "val": "dev_tasks.json",
        "test": "test_tasks.json",
    }

    background: Ids
    entities: int
    relations: int
    tasks: dict[str, list[Relation]]
    tails: dict[tuple[int, str], Ids]
    inverses: Ids


def read_graph(folder: Path) -> FewShotGraph:
    """Read and check the files in `folder`.

    Raises:
        FewshotError: a file is missing or malformed, names an unknown entity or relation, gives a
            name or an id twice, or a task relation stands in two stages or in the background graph.
    """
    entities = _read_ids(folder / "ent2ids")
    relations = _read_ids(folder / "relation2ids")
    candidates = _read_json(folder / "rel2candidates.json")
    tasks = {
        stage: _read_tasks(folder / name, folder / "rel2candidates.json", entities, candidates)
        for stage, name in FewShotGraph.FILES.items()
    }
    stages: dict[str, str] = {}
    for stage, stage_relations in tasks.items():
        for name in (relation.name for relation in stage_relations):
            path = folder / FewShotGraph.FILES[stage]
            if name in stages:
                raise FewshotError(
                    f"{path}: relation {name!r} is also in {FewShotGraph.FILES[stages[name]]}; a"
                    " relation belongs to one stage, remove it from the other"
                )
            if name in relations:
                raise FewshotError(
                    f"{path}: relation {name!r} is also a background relation in"
                    f" {folder / 'relation2ids'}: its triples would leak into training; remove it"
                    " from one of them"
                )
            stages[name] = stage
    background = _read_triples(folder / "path_graph", entities, relations)
    tails = _read_tails(folder / "e1rel_e2.json", entities, tasks)
    return FewShotGraph(
        background, len(entities), len(relations), tasks, tails, _inverses(relations)
    )


def _inverses(relations: dict[str, int]) -> Ids:
    """The inverse of each relation, (R,)."""
    inverses = np.full(len(relations), -1, np.int32)
    for name, number in relations.items():
        inverse = name.removesuffix("_inv") if name.endswith("_inv") else f"{name}_inv"
        inverses[number] = relations.get(inverse, -1)
    return inverses


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, whose keys must differ."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise FewshotError(f"{path}: {twice!r} stands twice; remove one of the two")
        return mapping

    try:
        with path.open(encoding="utf-8") as file:
            content = json.load(file, object_pairs_hook=unique)
    except FileNotFoundError as error:
        raise FewshotError(f"{path} is missing; {REMEDY}") from error
    except json.JSONDecodeError as error:
        raise FewshotError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); fetch the file again"
        ) from error
    except UnicodeDecodeError as error:
        raise FewshotError(
            f"{path}: not UTF-8 at byte {error.start}; fetch the file again"
        ) from error
    if not isinstance(content, dict):
        raise FewshotError(
            f"{path}, line 1: expected an object, found a {type(content).__name__}; fetch the file"
            " again"
        )
    return content


def _read_ids(path: Path) -> dict[str, int]:
    """Names with their ids, which are 0..n-1, each once."""
    ids = _read_json(path)
    names: list[str | None] = [None] * len(ids)
    for name, number in ids.items():
        if not isinstance(number, int) or not 0 <= number < len(ids):
            raise FewshotError(
                f"{path}: {name!r} has the id {number!r}; the {len(ids)} ids must be"
                f" 0..{len(ids) - 1}, each once"
            )
        if names[number] is not None:
            raise FewshotError(
                f"{path}: {name!r} and {names[number]!r} both have the id {number}; number them"
                " apart"
            )
        names[number] = name
    return ids


def _read_triples(path: Path, entities: dict[str, int], relations: dict[str, int]) -> Ids:
    """Triples (t, 3) of a TSV file, line by line; 12 bytes a triple."""
    triples = array("i")
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) != 3:
                    raise FewshotError(
                        f"{path}, line {number}: {len(fields)} fields; a triple is head, relation"
                        " and tail, with tabs"
                    )
                head, relation, tail = fields
                try:
                    triples.extend((entities[head], relations[relation], entities[tail]))
                except KeyError as error:
                    file_of = (
                        "relation2ids"
                        if error.args[0] == relation and head in entities
                        else "ent2ids"
                    )
                    raise FewshotError(
                        f"{path}, line {number}: {error.args[0]!r} is not in {file_of}"
                    ) from error
    except FileNotFoundError as error:
        raise FewshotError(f"{path} is missing; {REMEDY}") from error
    return np.frombuffer(triples, np.int32).reshape(-1, 3)


def _known(names: Iterable[Any], entities: dict[str, int], where: str) -> list[int]:
    try:
        return [entities[name] for name in names]
    except (KeyError, TypeError) as error:
        raise FewshotError(
            f"{where}: entity {error.args[0]!r} is not in ent2ids; add it, or remove it here"
        ) from error


def _read_tasks(
    path: Path, candidates_path: Path, entities: dict[str, int], candidates: dict[str, Any]
) -> list[Relation]:
    """The relations of a stage, in the file's order."""
    relations = []
    for name, triples in _read_json(path).items():
        pairs: dict[tuple[int, int], int] = {}
        for number, triple in enumerate(triples, 1):
            where = f"{path}, relation {name!r}, triple {number}"
            if not isinstance(triple, list) or len(triple) != 3 or triple[1] != name:
                raise FewshotError(f"{where}: {triple!r} is no [head, {name!r}, tail]; correct it")
            head, tail = _known((triple[0], triple[2]), entities, where)
            if (earlier := pairs.setdefault((head, tail), number)) != number:
                raise FewshotError(
                    f"{where}: {triple!r} is triple {earlier} again; remove one of the two"
                )
        if name not in candidates:
            raise FewshotError(
                f"{candidates_path}: relation {name!r} of {path.name} has no candidates; add them"
            )
        ids = _known(candidates[name], entities, f"{candidates_path}, relation {name!r}")
        if len(set(ids)) < len(ids):
            raise FewshotError(
                f"{candidates_path}, relation {name!r}: a candidate stands twice; remove one of"
                " the two"
            )
        relations.append(
            Relation(name, np.array(list(pairs), np.int32).reshape(-1, 2), np.array(ids, np.int32))
        )
    return relations


def _read_tails(
    path: Path, entities: dict[str, int], tasks: dict[str, list[Relation]]
) -> dict[tuple[int, str], Ids]:
    """All true tails of each (head, relation) of the tasks: the file's and the tasks' own."""
    listed, tails = _read_json(path), {}
    heads = {
        int(head) for stage in tasks.values() for relation in stage for head in relation.pairs[:, 0]
    }
    names = {number: name for name, number in entities.items() if number in heads}
    for relation in (relation for stage in tasks.values() for relation in stage):
        for head in dict.fromkeys(relation.pairs[:, 0].tolist()):
            key = f"{names[head]}{relation.name}"
            also = _known(listed.get(key, ()), entities, f"{path}, {key!r}")
            own = relation.pairs[relation.pairs[:, 0] == head, 1]
            tails[head, relation.name] = np.union1d(own, np.array(also, np.int32)).astype(np.int32)
    return tails
