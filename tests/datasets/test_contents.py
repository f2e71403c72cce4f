"""Published sets of texts are known by their checksums; what is not known is said in one line."""

import json
import logging
import shutil
from pathlib import Path
from typing import get_args

import pytest
from fakes import fake_clinc150, fake_fewglue, fake_fewrel, fake_snips

from fewshot.datamodules import CLINC150DataModule
from fewshot.datasets import clinc150
from fewshot.datasets.clinc150 import Variant, load_clinc150
from fewshot.datasets.fewglue import read_fewglue
from fewshot.datasets.fewglue_files import BLOBS
from fewshot.datasets.fewglue_patterns import TASKS
from fewshot.datasets.fewrel import load_fewrel
from fewshot.datasets.reading.downloads import file_hash
from fewshot.datasets.snips import load_snips
from fewshot.errors import FewshotError

SIZES = {"full": 15000, "small": 7500, "imbalanced": 10525, "oos_plus": 15000}


def texts(root: Path, variant: Variant) -> int:
    parts = clinc150.read_utterances(
        clinc150.find_file(root, f"data_{variant}.json", False, variant)
    )
    return sum(len(found["train"]) for found in parts.values())


def test_the_published_sets_are_read_by_name(
    shared_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root, there = shared_data / "clinc150", []
    for variant in get_args(Variant):
        if (root / f"data/data_{variant}.json").is_file():
            there.append(variant)
            assert texts(root, variant) == SIZES[variant]
            assert clinc150.is_known(root, variant)
    assert "full" in there
    for variant in there:
        load_clinc150(root, variant=variant)
    assert "published" not in caplog.text
    module = CLINC150DataModule(root=str(root), variant="small")
    assert module.protocol()["variant"] == "small"
    assert "content" not in module.protocol()
    assert "variant" not in CLINC150DataModule(root=str(root)).protocol()


def test_a_published_set_is_known_whatever_its_file_is_called(
    shared_data: Path, tmp_path: Path
) -> None:
    source = shared_data / "clinc150/data"
    shutil.copy(source / "data_small.json", tmp_path / "mine.json")
    assert texts(tmp_path, "small") == 7500
    shutil.copy(source / "data_small.json", tmp_path / "data_full.json")
    (tmp_path / "mine.json").unlink()
    with pytest.raises(FewshotError, match=r"data_full.json holds the published small, not full"):
        load_clinc150(tmp_path)
    # the right content is found beside it
    shutil.copy(source / "data_full.json", tmp_path / "other.json")
    assert texts(tmp_path, "full") == 15000


def test_content_that_nobody_knows_is_said_in_one_line_and_in_the_results(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = fake_clinc150(tmp_path)
    with caplog.at_level(logging.WARNING):
        load_clinc150(root)
    (record,) = [r for r in caplog.records if "published" in r.getMessage()]
    assert "data_full.json is not known to be the published full" in record.getMessage()
    assert "\n" not in record.getMessage()
    facts = CLINC150DataModule(root=str(root)).protocol()
    assert facts["content"] == "not known to be the published one"


def test_a_set_that_is_not_there_and_one_that_does_not_exist(tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path)
    with pytest.raises(FewshotError, match=r"no data_oos_plus.json in"):
        load_clinc150(root, variant="oos_plus")
    for make in (CLINC150DataModule, load_clinc150):
        with pytest.raises(
            FewshotError, match=r"variant is 'tiny'; (give|it must be) '?full'? or '?small'? or "
        ):
            make(root=root, variant="tiny")  # type: ignore[arg-type]


def test_the_sets_differ_in_what_is_read(tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path)
    content = json.loads((root / "data_full.json").read_text())
    content["train"] = content["train"][::2]
    (root / "data_small.json").write_text(json.dumps(content))
    counts = [load_clinc150(root, variant=v).datasets["train"].counts[0] for v in ("full", "small")]
    assert counts == [20, 12]


def test_fewrels_and_snips_files_are_looked_at_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_fewrel(fake_fewrel(tmp_path / "a"), "train_wiki_subset", "val_wiki", "val_wiki")
        load_snips(fake_snips(tmp_path / "b"))
    told = [r.getMessage() for r in caplog.records if "not known to be the published" in r.message]
    assert len(told) == 3, "a line a file of FewRel, and one for all of SNIPS"
    assert "val_wiki.json is not known to be the published val_wiki:" in " ".join(told)


def test_the_published_files_of_fewrel_and_snips_are_known(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        load_fewrel(shared_data, "val_pubmed", "val_wiki", "val_wiki")
        load_snips(shared_data)
    assert "published" not in caplog.text
    source = shared_data / "fewrel/data"
    for one, other in (("val_wiki", "val_pubmed"), ("val_pubmed", "val_wiki")):
        shutil.copy(source / f"{one}.json", tmp_path / f"{other}.json")
    with pytest.raises(FewshotError, match=r"val_\w+.json holds the published val_\w+, not val_"):
        load_fewrel(tmp_path, "val_pubmed", "val_wiki", "val_wiki")


def test_fewglues_files_are_looked_at(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = fake_fewglue(tmp_path)
    with caplog.at_level(logging.WARNING):
        read_fewglue(root, "CB", "train")
    (record,) = [r for r in caplog.records if "not known to be the published" in r.getMessage()]
    assert "train.jsonl is not known to be the published CB/train: its git-blob" in record.message


def test_fewglues_published_files_are_known(
    shared_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert {name.split("/")[0] for name in BLOBS} == set(TASKS)
    files = list((shared_data / "fewglue").rglob("*.jsonl"))
    with caplog.at_level(logging.WARNING):
        for file in files:
            read_fewglue(shared_data, file.parent.name, file.stem)  # type: ignore[arg-type]
    assert len(files) > 30
    assert "published" not in caplog.text
    (tmp_path / "CB").mkdir()
    shutil.copy(shared_data / "fewglue/FewGLUE_32dev/CB/dev32.jsonl", tmp_path / "CB/train.jsonl")
    with pytest.raises(FewshotError, match="holds the published CB/dev32, not CB/train; ask for"):
        read_fewglue(tmp_path, "CB", "train")


def test_a_digest_of_git_is_gits_own(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"what is up, doc?")
    # of the book Pro Git, chapter 10.2
    assert file_hash(file, "git-blob") == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_an_imbalanced_set_is_read_with_its_own_numbers(tmp_path: Path) -> None:
    root = fake_clinc150(tmp_path)
    content = json.loads((root / "data_full.json").read_text())
    numbers = {
        intent: 4 * (1 + i % 4) for i, intent in enumerate(sorted({i for _, i in content["train"]}))
    }
    rows: list[list[str]] = []
    for text, intent in content["train"]:
        if sum(intent == other for _, other in rows) < numbers[intent]:
            rows.append([text, intent])
    (root / "data_imbalanced.json").write_text(json.dumps(content | {"train": rows}))
    splits: tuple[clinc150.Split, ...] = ("seed", "domain")
    for split in splits:
        for found in load_clinc150(root, split, variant="imbalanced").datasets.values():
            expected = [numbers[name] + 4 for name in found.classes]  # and val's and test's
            assert found.counts.tolist() == expected
            assert len(set(expected)) > 1
    whole = load_clinc150(root, "all", shot=4, variant="imbalanced").datasets
    assert {part: set(found.counts.tolist()) for part, found in whole.items()} == {
        "train": {4},
        "val": {2},
        "test": {2},
    }
    with pytest.raises(FewshotError, match="has 4 training texts, too few for shot 5"):
        load_clinc150(root, "all", shot=5, variant="imbalanced")
