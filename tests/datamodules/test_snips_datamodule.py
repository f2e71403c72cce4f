"""SNIPS: its protocols, its Latin-1 file, what is refused, and the real data."""

import json
import time
from pathlib import Path

import pytest
from fakes import fake_snips

from fewshot.datamodules.snips import SNIPSDataModule
from fewshot.datasets.snips import FOLDER, INTENTS, read_utterances
from fewshot.errors import FewshotError


def test_one_task_has_all_intents(tmp_path: Path) -> None:
    data = SNIPSDataModule(root=str(fake_snips(tmp_path)), shot=5)
    (task,) = data.test_dataloader()
    assert task.stacked.support.targets.tolist() == [[n for n in range(7) for _ in range(5)]]
    assert task.stacked.query.targets.tolist() == [[n for n in range(7) for _ in range(3)]]
    assert data.protocol()["split"] == "all, fold 0"
    assert data.protocol()["queries"] == "all"
    with pytest.raises(
        FewshotError, match="split all has 7 classes in its one task, way is 5; set way: 7"
    ):
        SNIPSDataModule(root=str(tmp_path), way=5).setup("test")


def test_another_fold_is_another_support(tmp_path: Path) -> None:
    root = str(fake_snips(tmp_path))
    supports = set()
    for fold in (0, 1, 2, 0):
        data = SNIPSDataModule(root=root, shot=2, fold=fold)
        train = data.datasets["train"].inputs
        assert isinstance(train, dict)
        words = data.texts.vocabulary
        drawn = tuple(words[i] for i in train["tokens"][:, 3].tolist())  # the utterance's number
        assert len(set(drawn[:2])) == 2
        supports.add(drawn)
    assert len(supports) == 3  # the same fold is the same support


def test_intents_may_be_split(tmp_path: Path) -> None:
    data = SNIPSDataModule(root=str(fake_snips(tmp_path)), split="seed", way=2)
    classes = [name for part in ("train", "val", "test") for name in data.datasets[part].classes]
    assert sorted(classes) == sorted(INTENTS)
    assert [len(data.datasets[part].classes) for part in ("train", "val", "test")] == [3, 2, 2]


def test_latin_1_is_read_and_an_empty_utterance_is_named(tmp_path: Path) -> None:
    file = fake_snips(tmp_path) / FOLDER / "PlayMusic/train_PlayMusic_full.json"
    assert read_utterances(file, "PlayMusic")[0] == "caf\xe9 PlayMusic number 0"
    file.write_text(
        json.dumps({"PlayMusic": [{"data": [{"text": "a"}]}, {"data": [{"text": " ?"}]}]}, indent=1)
    )
    with pytest.raises(FewshotError, match=r"full\.json, line 10: PlayMusic\[1\] has no word"):
        read_utterances(file, "PlayMusic")


def test_the_real_data(shared_data: Path) -> None:
    start = time.process_time()
    data = SNIPSDataModule(root=str(shared_data / "snips"), shot=5)
    data.setup("test")
    assert time.process_time() - start < 5
    assert {part: d.counts.tolist() for part, d in data.datasets.items()} == {
        "train": [5] * 7,
        "val": [100] * 7,
        "test": [100] * 7,
    }
