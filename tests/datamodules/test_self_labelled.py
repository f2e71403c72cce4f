"""Benchmarks without labels: whose views queries are, numbered streams, ranks, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from every_learner import TinyImages
from PIL import Image

import fewshot
from fewshot import FewshotError, SelfLabelledDataModule
from fewshot.datamodules.self_labelled import WordDropout
from fewshot.engine.views import Views
from fewshot.episodes.types import Episode
from fewshot.hyperparameters import parameter_names

SIZES: dict[str, Any] = {"train_way": 4, "train_queries": 2, "train_episodes": 8, "val_episodes": 4}


def tiny(**arguments: Any) -> SelfLabelledDataModule:
    images = TinyImages(way=3, queries=3)
    return SelfLabelledDataModule(
        benchmark=images, **{**SIZES, "views": Views(erase=0.3), **arguments}
    )


def photos(folder: Path, number: int = 40, size: int = 12) -> Path:
    rng = np.random.default_rng(0)
    for i in range(number):
        place = folder / f"part{i % 3}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (size, size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def inputs(episodes: Episode) -> tuple[torch.Tensor, torch.Tensor]:
    support, query = episodes.support.inputs, episodes.query.inputs
    assert isinstance(support, torch.Tensor)
    assert isinstance(query, torch.Tensor)
    return support, query


def test_a_query_is_a_view_of_its_own_support() -> None:
    support, query = inputs(tiny().stream("train")[3])
    assert support.shape == (4, 1, 4, 4)
    assert query.shape == (8, 1, 4, 4)
    for shown, source in zip(query, support.repeat_interleave(2, 0), strict=True):
        erased = shown == 0
        assert torch.equal(shown[~erased], source[~erased])  # views that erase, and nothing else
        assert erased.any()
    pool = tiny().pool.inputs
    assert isinstance(pool, torch.Tensor)
    known = {tuple(image.flatten().tolist()) for image in pool}
    assert {tuple(image.flatten().tolist()) for image in support} <= known


def test_labels_of_training_are_not_looked_at() -> None:
    data = tiny(train_way=40)  # of 48 examples in 6 classes
    support, _ = inputs(data.stream("train")[0])
    assert len({tuple(image.flatten().tolist()) for image in support}) == 40
    assert data.train_classes == 48


def test_further_shots_are_views_and_the_first_is_the_example() -> None:
    support, _ = inputs(tiny(train_shot=3).stream("train")[0])
    first, second, third = support.view(4, 3, -1).unbind(1)
    plain, _ = inputs(tiny().stream("train")[0])
    assert torch.equal(first, plain.flatten(1))
    assert not torch.equal(first, second)
    assert not torch.equal(second, third)
    changed, _ = inputs(tiny(support_views=Views(shift=1)).stream("train")[0])
    assert not torch.equal(changed, plain)


def test_an_episode_is_a_function_of_its_number() -> None:
    stream = tiny().stream("train")
    one, again = stream[5], tiny().stream("train").__getitems__([4, 5]).parts[0]
    for part, of in zip(inputs(one), inputs(again), strict=True):
        assert torch.equal(part, of[1])
    assert torch.equal(one.query.targets, again.query.targets[1])
    assert not torch.equal(inputs(stream[6])[1], inputs(one)[1])
    other = tiny(seed=1).stream("train")[5]
    assert not torch.equal(inputs(other)[1], inputs(one)[1])
    examples = tiny().example_stream()
    both = examples.__getitems__([3, 50])
    several, single = both.examples.inputs, examples[50].examples.inputs
    assert isinstance(several, torch.Tensor)
    assert isinstance(single, torch.Tensor)
    assert torch.equal(several[1], single[0])


def test_validation_and_test_are_those_of_the_classes() -> None:
    data, labelled = tiny(), TinyImages(way=3, queries=3)
    for stage in ("val", "test"):
        mine, its = data.stream(stage)[2], labelled.stream(stage)[2]
        assert torch.equal(inputs(mine)[1], inputs(its)[1])
    assert data.task == {"kind": "classification", "way": 3, "train_way": 4}
    assert data.protocol()["training_labels"] == "SelfLabelled"


@pytest.mark.parametrize("name", ["MAML", "PrototypicalNetwork", "Baseline", "MatchingNetwork"])
def test_learners_of_every_family_train_on_it(name: str, tmp_path: Path) -> None:
    cls = getattr(fewshot, name)
    data = tiny(train_way=3, batch_size=8)
    facts = {"train_classes": data.train_classes} if name == "Baseline" else {}
    assert not facts or "train_classes" in parameter_names(cls)
    learner = cls(fewshot.MLP(16, (8,)), task=data.task, **facts)
    before = [p.detach().clone() for p in learner.parameters()]
    trainer = fewshot.Trainer(
        max_epochs=1,
        default_root_dir=tmp_path,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        limit_train_batches=2,
    )
    trainer.fit(learner, data)
    assert any(not torch.equal(a, b) for a, b in zip(before, learner.parameters(), strict=True))
    assert 0 <= trainer.callback_metrics["val/accuracy"] <= 1


def test_a_folder_of_photos_needs_no_labels(tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level("INFO"):
        data = SelfLabelledDataModule(
            unlabelled=str(photos(tmp_path)), image_size=8, **{**SIZES, "train_way": 3}
        )
    (said,) = [r.getMessage() for r in caplog.records if "no labels" in r.getMessage()]
    assert "\n" not in said
    assert "set `benchmark`" in said or "give `benchmark`" in said
    sizes = [
        len(data.pool.counts),
        *(data.parts(stage)[0].counts.sum() for stage in ("val", "test")),
    ]
    assert sizes == [32, 4, 4]
    support, query = inputs(data.stream("val")[0])
    assert support.shape == (3, 3, 8, 8)
    assert not torch.equal(support.repeat_interleave(2, 0), query)
    assert data.protocol()["judged_on"] == "views of held out examples"


def test_unlabelled_photos_train_and_labelled_ones_judge(tmp_path: Path) -> None:
    for i in range(6):
        photos(tmp_path / "labelled" / f"class{i}", 6)
    labelled = fewshot.ImageFolderDataModule(str(tmp_path / "labelled"), image_size=8)
    folder = str(photos(tmp_path / "photos", 30))
    data = SelfLabelledDataModule(benchmark=labelled, unlabelled=folder, **SIZES)
    assert len(data.pool.counts) == 30
    assert torch.equal(inputs(data.stream("val")[0])[1], inputs(labelled.stream("val")[0])[1])


def test_texts_lose_words_and_keep_their_order(tmp_path: Path) -> None:
    lines = [" ".join(f"w{i}x{j}" for j in range(6)) for i in range(40)]
    (tmp_path / "texts.txt").write_text("\n".join(lines))
    data = SelfLabelledDataModule(
        unlabelled=str(tmp_path / "texts.txt"), word_dropout=0.5, **{**SIZES, "train_way": 3}
    )
    episode = data.stream("train")[0]
    support, query = episode.support.inputs, episode.query.inputs
    assert isinstance(support, dict)
    assert isinstance(query, dict)
    assert int(query["lengths"].min()) >= 1
    assert int(query["lengths"].sum()) < 6 * 6
    for row in range(6):
        source, length = support["tokens"][row // 2].tolist(), int(query["lengths"][row])
        left = query["tokens"][row].tolist()
        places = [source.index(token) for token in left[:length]]
        assert places == sorted(set(places))
        assert not any(left[length:])


def test_one_word_stays() -> None:
    texts = {"tokens": torch.tensor([[[7, 8, 0]]]), "lengths": torch.tensor([[2]])}
    changed = WordDropout(0.999)(texts, [np.random.default_rng(0)])
    assert isinstance(changed, dict)
    assert changed["lengths"].tolist() == [[1]]
    assert changed["tokens"][0, 0, 0] in (7, 8)


def test_what_cannot_be_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    text = str(tmp_path / "a.txt")
    for arguments, told in (
        ({}, "set unlabelled to your folder"),
        ({"unlabelled": str(tmp_path / "none")}, "does not exist"),
        ({"benchmark": fewshot.SinusoidDataModule()}, "benchmark"),
        ({"benchmark": TinyImages(label_assignment="fixed")}, "label_assignment"),
        ({"unlabelled": text, "views": Views(shift=1)}, "set word_dropout"),
        ({"unlabelled": text, "word_dropout": 0.0}, "word_dropout is 0"),
        ({"benchmark": TinyImages(queries=3), "train_way": 100}, "set train_way <= 48"),
        ({"unlabelled": text}, "there are 3 examples without labels"),
        ({"unlabelled": str(tmp_path / "empty")}, "holds no image"),
    ):
        with pytest.raises(FewshotError) as error:
            SelfLabelledDataModule(**arguments).prepare_data()
        assert told in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(FewshotError, match="views change nothing"):
        Views()
