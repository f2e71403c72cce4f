"""GMatching in double precision: its equations, its gradient, the neighbours that it reads."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fakes import fake_wiki_one
from slopes import assert_slope
from torch import Tensor

from fewshot import FewshotError, GMatching, NeighbourEncoder, WikiOneDataModule
from fewshot.datasets.reading.neighbours import neighbours
from fewshot.episodes.types import Episode, Examples

SIZE, SHOT, QUERIES, CANDIDATES = 3, 2, 3, 4
TASK = {"kind": "ranking"}
TRIPLES = [(0, 0, 1), (1, 0, 2), (1, 1, 3), (4, 1, 1), (5, 0, 1)]  # entity 6 has no neighbour
INVERSES = [2, 3, 0, 1]
MOST = 3


def by_hand() -> list[list[tuple[int, int]]]:
    found: list[list[tuple[int, int]]] = [[] for _ in range(7)]
    for head, relation, tail in TRIPLES:
        found[head].append((relation, tail))
        found[tail].append((INVERSES[relation], head))
    return [of_one[:MOST] for of_one in found]


def encoder(folder: Path, places: int | None = None) -> NeighbourEncoder:
    arrays = neighbours(np.array(TRIPLES, np.int32), np.array(INVERSES, np.int32), 7, MOST)
    np.savez(folder / "neighbours.npz", starts=arrays["starts"], edges=arrays["edges"])
    torch.manual_seed(0)
    return NeighbourEncoder(
        7,
        4,
        len(arrays["edges"]),
        SIZE,
        str(folder / "neighbours.npz"),
        frozen=False,
        places=places,
    )


def learner(folder: Path, places: int | None = None) -> GMatching:
    made = GMatching(encoder(folder, places), dropout=0.0, task=TASK)
    with torch.no_grad():
        made.norm.weight.uniform_(0.5, 1.5)
        made.norm.bias.normal_()
    return made.double()


@pytest.fixture
def batch() -> Episode:
    torch.manual_seed(1)
    ids = (
        torch.randint(7, (2, SHOT, 2)),
        torch.randint(7, (2, QUERIES)),
        torch.randint(7, (2, QUERIES, CANDIDATES)),
    )
    ids[2][0, 0, 1] = -1
    zeros = torch.zeros(2, QUERIES, dtype=torch.int64)
    support = Examples({"pairs": ids[0], "wrong": torch.randint(7, (2, SHOT))}, zeros[:, :SHOT])
    return Episode(support, Examples({"heads": ids[1], "candidates": ids[2]}, zeros))


def test_neighbours_are_those_of_both_directions_and_the_first() -> None:
    arrays = neighbours(np.array(TRIPLES, np.int32), np.array(INVERSES, np.int32), 7, MOST)
    found = [
        [tuple(edge) for edge in arrays["edges"][start:end].tolist()]
        for start, end in zip(arrays["starts"][:-1], arrays["starts"][1:], strict=True)
    ]
    assert found == by_hand()
    assert [len(of_one) for of_one in found] == [1, 3, 1, 1, 1, 1, 0]


def of_entity(made: GMatching, entity: int) -> Tensor:
    backbone = made.backbone
    assert isinstance(backbone, NeighbourEncoder)
    summed = torch.zeros(SIZE, dtype=torch.float64)
    near = by_hand()[entity]
    for relation, other in near:
        pair = torch.cat(
            [backbone.relations.vectors.weight[relation], backbone.entities.vectors.weight[other]]
        )
        summed = summed + backbone.project.weight @ pair
    if backbone.places is None:
        return torch.tanh(summed / max(len(near), 1) + backbone.project.bias)
    for _ in range(backbone.places):  # the padding has vectors of zeros, and is given the bias too
        summed = summed + backbone.project.bias
    return torch.tanh(summed / max(len(near), 1))


def of_pair(made: GMatching, head: int, tail: int) -> Tensor:
    pair = torch.cat([of_entity(made, head), of_entity(made, tail)])
    first, last = made.hidden[0], made.hidden[3]
    assert isinstance(first, torch.nn.Linear)
    assert isinstance(last, torch.nn.Linear)
    changed = last.weight @ (first.weight @ pair + first.bias).clamp(min=0) + last.bias + pair
    normal = (changed - changed.mean()) / (changed.var(correction=0) + 1e-5).sqrt()
    return normal * made.norm.weight + made.norm.bias


def matched(made: GMatching, query: Tensor, support: Tensor) -> Tensor:
    """The authors' LSTM cell, twice as wide as is read; the rest, random here, changes nothing."""
    size = len(query)
    cell = torch.nn.LSTMCell(size, 2 * size).double()
    read = torch.arange(8 * size).view(4, 2, size)[:, 0].flatten()  # of each gate the first half
    with torch.no_grad():
        cell.weight_ih[read], cell.bias_ih[read], cell.bias_hh[read] = (
            made.of_query.weight,
            made.of_query.bias,
            0,
        )
        cell.weight_hh[read] = torch.cat([gates.weight for gates in made.of_state], 1)  # type: ignore[misc]
    h, state = query, (query.new_zeros(2 * size),) * 2
    for _ in range(made.steps):
        output, c = cell(query, state)
        h = query + output[:size]
        state = torch.cat([h, support]), c
    return h @ support


@pytest.mark.parametrize("places", [None, MOST])
def test_scores_are_the_written_out_ones(
    places: int | None, tmp_path: Path, batch: Episode
) -> None:
    made = learner(tmp_path, places)
    (outcome,) = made.run(batch, training=True)
    pairs, query = batch.support.inputs, batch.query.inputs
    assert isinstance(pairs, dict)
    assert isinstance(query, dict)
    for e in range(2):
        support = torch.stack([of_pair(made, *pair) for pair in pairs["pairs"][e].tolist()]).mean(0)
        for q, head in enumerate(query["heads"][e].tolist()):
            for c, tail in enumerate(query["candidates"][e, q].tolist()):
                expected = (
                    -torch.inf
                    if tail < 0
                    else matched(made, of_pair(made, head, tail), support).item()
                )
                assert outcome.outputs[e, q, c].item() == pytest.approx(expected, abs=1e-12)
    gaps = [(5 - row[0] + row[1:])[row[1:].isfinite()].clamp(min=0) for row in outcome.outputs[0]]
    assert outcome.loss[0].item() == pytest.approx(torch.cat(gaps).mean().item(), abs=1e-12)


@pytest.mark.parametrize("places", [None, MOST])
def test_its_gradient_is_the_slope(places: int | None, tmp_path: Path, batch: Episode) -> None:
    made = learner(tmp_path, places)
    assert_slope(
        lambda: next(made.run(batch, training=True)).loss.sum(), list(made.parameters()), 1e-6
    )


def test_the_order_of_the_support_does_not_matter(tmp_path: Path, batch: Episode) -> None:
    made = learner(tmp_path)
    inputs = batch.support.inputs
    assert isinstance(inputs, dict)
    turned = Examples({name: ids.flip(1) for name, ids in inputs.items()}, batch.support.targets)
    torch.testing.assert_close(
        made.evaluate(batch).outputs,
        made.evaluate(Episode(turned, batch.query)).outputs,
        rtol=0,
        atol=1e-12,
    )


def test_neighbours_of_another_graph_are_refused(tmp_path: Path) -> None:
    encoder(tmp_path)
    with pytest.raises(
        FewshotError, match=r"has starts \(8,\), not \(7,\); leave entities, edges and neighbours"
    ):
        NeighbourEncoder(6, 4, 9, SIZE, str(tmp_path / "neighbours.npz"))
    with pytest.raises(FewshotError, match="places is 0; it must be at least 1"):
        NeighbourEncoder(7, 4, 9, SIZE, str(tmp_path / "neighbours.npz"), places=0)
    with pytest.raises(FewshotError, match="needs neighbours; choose a benchmark that has them"):
        NeighbourEncoder(6, 4, 9, SIZE)


def test_a_relation_without_an_inverse_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "cache"))
    root = fake_wiki_one(tmp_path / "root")
    file = root / "relation2ids"
    file.write_text(file.read_text().replace("next2_inv", "back2"))
    with pytest.raises(
        FewshotError, match="the relation of id 1 has no inverse, of its name and _inv"
    ):
        _ = WikiOneDataModule(str(root)).edges


def test_no_triple_of_a_task_is_among_the_real_neighbours(
    shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = shared_data / "codex_m_one"
    graph = WikiOneDataModule(str(root)).graph
    assert not {relation.name for relations in graph.tasks.values() for relation in relations} & {
        line.split("\t")[1] for line in (root / "path_graph").read_text().splitlines()
    }
    arrays = neighbours(graph.background, graph.inverses, graph.entities, 50)
    assert np.diff(arrays["starts"]).max() == 50
    assert len(arrays["edges"]) < 2 * len(graph.background)
