"""Wiki-One: an episode a relation, vectors trained once and read, both background graph uses."""

from pathlib import Path

import numpy as np
import pytest
from fakes import fake_wiki_one

from fewshot import FewshotError, WikiOneDataModule
from fewshot.datasets.reading.downloads import cached_arrays
from fewshot.datasets.reading.entity_vectors import Model, read_vectors, train_vectors
from fewshot.episodes.types import Episode


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "cache"))
    return fake_wiki_one(tmp_path / "root")


def test_a_stage_has_an_episode_for_each_relation(root: Path) -> None:
    data = WikiOneDataModule(str(root), shot=5)
    for loader, relations in ((data.val_dataloader(), 8), (data.test_dataloader(), 10)):
        batches = list(loader)
        episodes: list[Episode] = [part for batch in batches for part in batch.parts]
        assert len(episodes) == relations
        for support, query in episodes:
            assert isinstance(support.inputs, dict)
            assert isinstance(query.inputs, dict)
            assert support.inputs["pairs"].shape == (1, 5, 2)
            assert query.inputs["candidates"].shape == (1, 10, 61)
    facts = data.protocol()
    assert (facts["background"], facts["embeddings"], facts["queries"]) == (
        "BG:Pre-Train",
        "TransE",
        "all",
    )


def test_vectors_are_trained_once_and_again_where_the_cache_is_not_whole(root: Path) -> None:
    paths = [
        WikiOneDataModule(str(root), dimensions=8, embedding_epochs=2).entity_vectors
        for _ in range(2)
    ]
    assert paths[0] == paths[1] is not None
    path = Path(str(paths[0]))
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    WikiOneDataModule(str(root), dimensions=8, embedding_epochs=2).prepare()
    assert cached_arrays(path, dict)["entities"].shape == (60, 8)
    with np.load(path) as file:
        assert np.array_equal(file["entities"], cached_arrays(path, dict)["entities"])


@pytest.mark.parametrize("model", ["TransE", "DistMult"])
def test_vectors_are_a_function_of_the_triples_and_fit_them(model: Model) -> None:
    triples = np.array([[i, r, (i + 1 + r) % 30] for i in range(30) for r in range(2)], np.int32)
    made, again = (train_vectors(triples, 30, 2, model, 16, 300, seed=3) for _ in range(2))
    assert np.array_equal(made["entities"], again["entities"])
    assert np.allclose(np.linalg.norm(made["entities"], axis=1), 1, atol=1e-5)
    entity, relation = made["entities"], made["relations"]
    heads, tails = entity[triples[:, 0]], triples[:, 2]
    if model == "TransE":
        translated = heads + relation[triples[:, 1]]
        scores = -np.linalg.norm(translated[:, None] - entity, axis=2)
    else:
        scores = heads * relation[triples[:, 1]] @ entity.T
    ranks = (scores > scores[np.arange(60), tails][:, None]).sum(1) + 1
    assert ranks.mean() < 10  # 15.5 by chance


def test_vectors_of_a_file_are_read_by_id(root: Path) -> None:
    given = np.arange(120, dtype=np.float32).reshape(60, 2)
    np.savetxt(root / "entity2vec.TransE", given)
    data = WikiOneDataModule(str(root))
    assert data.dimensions == 2
    assert data.entity_vectors is not None
    with np.load(data.entity_vectors) as file:
        assert np.array_equal(file["entities"], given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2\n3\n", "not lines of as many"),
        ("1 2\n", "has 1 vectors, but ent2ids 2"),
        ("1 2\nnan 3\n", "line 2: not"),
    ],
)
def test_a_wrong_file_of_vectors_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "entity2vec.TransE").write_text(text)
    with pytest.raises(FewshotError, match=message):
        read_vectors(tmp_path / "entity2vec.TransE", 2)


def test_in_train_has_the_background_s_relations_too_and_no_vectors(root: Path) -> None:
    data = WikiOneDataModule(str(root), background="in-train", dimensions=7)
    assert (data.entity_vectors, data.dimensions) == (None, 7)
    assert data.protocol()["background"] == "BG:In-Train"
    names = [relation.name for relation in data.tasks("train").relations]  # type: ignore[attr-defined]
    assert names == ["by3", "by4", "by5", "by6", "background 0", "background 1"]
    data.tasks("train").draw(np.random.default_rng(0))


def test_too_many_relations_or_shots_are_refused(root: Path) -> None:
    with pytest.raises(FewshotError, match=r"test_episodes is 11, but .* has 10 relations"):
        WikiOneDataModule(str(root), test_episodes=11).test_dataloader()
    with pytest.raises(FewshotError, match=r"'by15' has 15 triples, but 15 supports"):
        WikiOneDataModule(str(root), shot=15).test_dataloader()
