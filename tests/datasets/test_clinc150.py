"""CLINC150: splits by intent and domain, vocabulary and encoding, every refusal, the real data."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fewshot.datasets import clinc150
from fewshot.datasets.clinc150 import load_clinc150, read_utterances
from fewshot.datasets.reading.texts import TextOptions
from fewshot.datasets.reading.words import (
    UNKNOWN,
    build_vocabulary,
    character_ngrams,
    document_frequencies,
    encode,
    split_terms,
    tokenize,
)
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.errors import FewshotError

INTENTS = [f"intent_{i:03d}" for i in range(150)]
DOMAINS = {f"domain_{d}": INTENTS[d::10] for d in range(10)}  # an intent's domain is its last digit


def utterances() -> dict[str, list[list[str]]]:
    """Two, one and one utterances an intent.

    Each holds the intent's own word, so that texts tell classes.
    """
    return {
        part: [[f"What's {word} own-{intent} ?", intent] for word in words for intent in INTENTS]
        for part, words in (("train", ("my", "your")), ("val", ("her",)), ("test", ("his",)))
    } | {"oos_train": [["nothing of this", "oos"]]}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Generated data in CLINC150's format."""
    (tmp_path / "data_full.json").write_text(json.dumps(utterances()))
    (tmp_path / "domains.json").write_text(json.dumps(DOMAINS))
    return tmp_path


def tokens(dataset: ClassDataset) -> tuple[Tensor, Tensor]:
    assert isinstance(dataset.inputs, dict)
    assert list(dataset.inputs) == ["tokens", "lengths"]
    return dataset.inputs["tokens"], dataset.inputs["lengths"]


def test_the_seed_split_permutes_the_sorted_intents(root: Path) -> None:
    data, *_ = load_clinc150(root, split_seed=3)
    order = np.random.default_rng(3).permutation(150)
    assert {part: d.classes for part, d in data.items()} == {
        part: tuple(INTENTS[i] for i in order[first : first + 50])
        for part, first in (("train", 0), ("val", 50), ("test", 100))
    }
    assert load_clinc150(root, split_seed=3)[0]["test"].classes == data["test"].classes
    assert load_clinc150(root, split_seed=4)[0]["test"].classes != data["test"].classes


def test_the_domain_split_keeps_domains_whole(root: Path) -> None:
    data, *_ = load_clinc150(root, split="domain", split_seed=3)
    order = np.random.default_rng(3).permutation(10)
    for part, domains in (("train", order[:4]), ("val", order[4:7]), ("test", order[7:])):
        assert sorted(data[part].classes) == sorted(
            name for d in domains for name in DOMAINS[f"domain_{d}"]
        )
    assert [len(data[part].classes) for part in ("train", "val", "test")] == [60, 45, 45]


@pytest.mark.parametrize("split", ["seed", "domain"])
def test_rows_are_all_utterances_of_their_class(root: Path, split: clinc150.Split) -> None:
    data, vocabulary, *_ = load_clinc150(root, split=split)
    train = data["train"]
    rows, lengths = tokens(train)
    assert train.counts.tolist() == [4] * len(train.classes)
    assert rows.shape == (4 * len(train.classes), 5)
    assert rows.dtype == lengths.dtype == torch.int64
    for start, intent in zip(train.starts, train.classes, strict=True):
        found = [
            " ".join(vocabulary[i] for i in row[:length])
            for row, length in zip(rows[start : start + 4], lengths[start : start + 4], strict=True)
        ]
        words = " ".join(tokenize(intent))
        assert found == [f"what's {word} own {words}" for word in ("my", "your", "her", "his")]


def test_the_vocabulary_knows_the_training_classes_alone(root: Path) -> None:
    data, vocabulary, *_ = load_clinc150(root)
    numbers = {intent.removeprefix("intent_") for intent in data["train"].classes}
    assert vocabulary[:2] == ("<padding>", "<unknown>")
    assert set(vocabulary[2:]) == {"what's", "own", "intent", "my", "your", "her", "his"} | numbers
    for part, share in (("train", 0.0), ("val", 0.2), ("test", 0.2)):
        rows, lengths = tokens(data[part])
        assert (rows == UNKNOWN).sum() / lengths.sum() == pytest.approx(share)


def test_rare_words_are_unknown(root: Path) -> None:
    # an intent's number occurs 4 times
    _, vocabulary, *_ = load_clinc150(root, options=TextOptions(min_count=5))
    assert set(vocabulary[2:]) == {"what's", "own", "intent", "my", "your", "her", "his"}


def test_words_are_ranked_by_frequency_then_name() -> None:
    texts = [["b", "a", "c"], ["a", "c"], ["d", "c"]]
    assert build_vocabulary(texts) == ("<padding>", "<unknown>", "c", "a", "b", "d")
    assert build_vocabulary(texts, min_count=2) == ("<padding>", "<unknown>", "c", "a")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Set a TIMER, for 10:30!", ["set", "a", "timer", "for", "10", "30"]),
        (
            "what\N{RIGHT SINGLE QUOTATION MARK}s o'clock's 'quoted'",
            ["what's", "o'clock's", "quoted"],
        ),
        ("snake_case e-mail abc123 $5", ["snake", "case", "e", "mail", "abc123", "5"]),
        (
            "caf\N{LATIN SMALL LETTER E WITH ACUTE} \N{CJK UNIFIED IDEOGRAPH-4F60}",
            ["caf\xe9", "\u4f60"],
        ),
        (" ?! '' <padding>", ["padding"]),
        ("", []),
    ],
)
def test_tokenize(text: str, words: list[str]) -> None:
    assert tokenize(text) == words


VOCABULARY = ("<padding>", "<unknown>", "a", "b")


def test_encode_pads_and_marks_the_unknown() -> None:
    found = encode([["a", "b"], ["b", "z", "a"], ["z"]], VOCABULARY)
    assert found["tokens"].tolist() == [[2, 3, 0], [3, 1, 2], [1, 0, 0]]
    assert found["lengths"].tolist() == [2, 3, 1]


def test_unknown_terms_are_spread_over_ids_past_the_vocabulary() -> None:
    terms = [f"z{i}" for i in range(40)]
    once, again = (
        encode([[*terms, "b"], order], VOCABULARY, 8)["tokens"] for order in (terms, terms[::-1])
    )
    assert set(once[0, :40].tolist()) == set(range(4, 12))
    assert once[0, 40] == 3
    assert again[1, :40].tolist() == once[0, :40].tolist()[::-1]


def test_document_frequencies_count_texts_not_occurrences() -> None:
    assert document_frequencies([["a", "a", "b"], ["a"], ["z"]], VOCABULARY) == [0, 0, 2, 1]


def test_character_ngrams_mark_the_ends_of_words() -> None:
    assert character_ngrams(["a", "bus"]) == ["<a>", "<bu", "bus", "us>", "<bus", "bus>", "<bus>"]
    assert split_terms("A bus, a car", "ngrams", max_words=2) == character_ngrams(["a", "bus"])
    assert split_terms("A bus, a car", "words", max_words=3) == ["a", "bus", "a"]


def test_ngrams_make_unknown_words_partly_known(root: Path) -> None:
    words, ngrams = load_clinc150(root), load_clinc150(root, options=TextOptions(terms="ngrams"))
    assert ngrams.documents == words.documents == 200
    assert "<ow" in ngrams.vocabulary
    assert "own" not in ngrams.vocabulary[:2]
    rows, lengths = tokens(ngrams.datasets["test"])
    assert rows.shape[1] == lengths.max()
    known = (rows > UNKNOWN).sum() / lengths.sum()
    rows, lengths = tokens(words.datasets["test"])
    assert known > (rows > UNKNOWN).sum() / lengths.sum()


def test_every_id_has_a_document_frequency(root: Path) -> None:
    data = load_clinc150(root, options=TextOptions(unknown_ids=7))
    assert len(data.document_frequencies) == len(data.vocabulary) + 7
    frequency = dict(zip(data.vocabulary, data.document_frequencies, strict=False))
    assert (frequency["own"], frequency["my"], frequency["<unknown>"]) == (200, 50, 0)
    assert data.document_frequencies[-7:] == [0] * 7
    rows, _ = tokens(data.datasets["test"])
    assert not (rows == UNKNOWN).any()
    assert int(rows.max()) < len(data.document_frequencies)


@pytest.mark.parametrize("folder", [".", "data", "clinc150", "clinc150/data"])
def test_files_are_found_where_people_have_them(root: Path, tmp_path: Path, folder: str) -> None:
    place = tmp_path / "elsewhere" / folder
    place.mkdir(parents=True)
    for name in ("data_full.json", "domains.json"):
        (root / name).rename(place / name)
    assert set(load_clinc150(tmp_path / "elsewhere", split="domain")[0]) == {"train", "val", "test"}


def test_a_download_is_verified_and_lands_under_the_root(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[tuple[str, str]] = []

    def fetch(url: str, path: Path, sha256: str) -> None:
        fetched.append((url, sha256))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((root / path.name).read_bytes())

    monkeypatch.setattr(clinc150, "fetch", fetch)
    data, *_ = load_clinc150(tmp_path / "new", split="domain", download=True)
    assert len(data["train"].classes) == 60
    assert sorted(p.name for p in (tmp_path / "new/clinc150").iterdir()) == [
        "data_full.json",
        "domains.json",
    ]
    assert fetched == [
        (clinc150.URL + name, clinc150.SHA256[name]) for name in ("data_full.json", "domains.json")
    ]
    load_clinc150(tmp_path / "new", split="domain", download=True)
    assert len(fetched) == 2  # what is there is not fetched again


@pytest.mark.parametrize("missing", ["data_full.json", "domains.json"])
def test_a_missing_file_names_its_source_and_remedy(root: Path, missing: str) -> None:
    (root / missing).unlink()
    with pytest.raises(FewshotError) as caught:
        load_clinc150(root, split="domain")
    message = str(caught.value)
    assert message.startswith(f"no {missing} in {root}")
    for part in ("download: true", f"clinc/oos-eval/master/data/{missing}", "CC BY 3.0"):
        assert part in message
    assert "\n" not in message
    with pytest.raises(FewshotError, match=r"^no data_full.json in .*nowhere"):
        load_clinc150(root / "nowhere")


Edit = Callable[[dict[str, list[object]]], object]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("val"), "has no list 'val', as CLINC150's"),
        (lambda d: d.update(test={"text": "intent"}), "has no list 'test'"),
        (
            lambda d: d["train"].insert(7, ["only text"]),
            r"train\[7\] is \['only text'\], not \[text, intent\]",
        ),
        (lambda d: d["test"].insert(2, ["text", 5]), r"test\[2\] is \['text', 5\], not"),
        (lambda d: d["test"].insert(0, "a" * 999), r"test\[0\] is 'a{79}, not"),
        (
            lambda d: d["val"].insert(3, [" ?!\n", "greeting"]),
            r"val\[3\] of 'greeting' has no word: ' \?!\\n'",
        ),
        (lambda d: d["train"].append(["a text", "oos"]), "has 151 intents, CLINC150 has 150"),
        (lambda d: [d[part].clear() for part in ("train", "val", "test")], "has 0 intents"),
    ],
)
def test_other_data_is_refused_by_its_first_wrong_item(
    root: Path, edit: Edit, message: str
) -> None:
    data = utterances()
    edit(data)  # type: ignore[arg-type]  # it makes wrong data on purpose
    (root / "data_full.json").write_text(json.dumps(data))
    with pytest.raises(FewshotError, match=f"data_full.json.*{message}") as caught:
        load_clinc150(root)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; delete it and fetch it again with download: true")


@pytest.mark.parametrize("name", ["data_full.json", "domains.json"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"train": [', "cannot be read as JSON"),
        (b"\xff\xfe\x00\xd8", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
        (b"[1, 2]", "holds a list, not an object"),
    ],
)
def test_files_that_are_no_json_object_are_refused(
    root: Path, name: str, content: bytes, message: str
) -> None:
    (root / name).write_bytes(content)
    with pytest.raises(FewshotError, match=f"{name} {message}") as caught:
        load_clinc150(root, split="domain")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ({**DOMAINS, "domain_4": 3}, "'domain_4' is 3, not a list of intents"),
        ({**DOMAINS, "domain_4": [3]}, r"'domain_4' is \[3\], not a list of intents"),
        ({**DOMAINS, "more": []}, "has 11 domains, CLINC150 has 10"),
        (
            {**DOMAINS, "domain_4": DOMAINS["domain_4"][1:]},
            "names the intent 'intent_004' 0 times, not 1",
        ),
        (
            {**DOMAINS, "domain_4": [*DOMAINS["domain_4"], "hm"]},
            "names the intent 'hm' 1 times, not 0",
        ),
        (
            {**DOMAINS, "domain_4": [*DOMAINS["domain_4"], INTENTS[0]]},
            "'intent_000' 2 times, not 1",
        ),
    ],
)
def test_domains_that_do_not_fit_are_refused(
    root: Path, domains: dict[str, object], message: str
) -> None:
    (root / "domains.json").write_text(json.dumps(domains))
    with pytest.raises(FewshotError, match=f"domains.json.*{message}"):
        load_clinc150(root, split="domain")
    load_clinc150(root)  # the seed split reads no domains


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "random"}, "^split is 'random'; it must be 'seed' or 'domain' or 'all'$"),
        ({"terms": "bytes"}, "^terms is 'bytes'; it must be 'words' or 'ngrams'$"),
        ({"unknown_ids": -1}, "^unknown_ids is -1; it must be at least 0$"),
        ({"split_seed": -1}, "^split_seed is -1; it must be at least 0$"),
        ({"max_length": 0}, "^max_length is 0; it must be at least 1$"),
        ({"min_count": 0}, "^min_count is 0; it must be at least 1$"),
    ],
)
def test_arguments_out_of_range_are_refused(
    tmp_path: Path, arguments: dict[str, int], message: str
) -> None:
    options = {name: arguments.pop(name) for name in list(arguments) if name in TextOptions._fields}
    with pytest.raises(FewshotError, match=message):
        # wrong on purpose
        load_clinc150(tmp_path, options=TextOptions(**options), **arguments)  # type: ignore[arg-type]


def test_the_real_data(shared_data: Path) -> None:
    root = shared_data / "clinc150"
    for name, digest in clinc150.SHA256.items():
        if name == "data_imbalanced.json" and not (root / "data" / name).exists():
            continue  # it was not to be had where the others were
        assert hashlib.sha256((root / "data" / name).read_bytes()).hexdigest() == digest
    start = time.process_time()
    data, vocabulary, *_ = load_clinc150(root)
    assert time.process_time() - start < 5
    assert {part: len(d.classes) for part, d in data.items()} == {
        "train": 50,
        "val": 50,
        "test": 50,
    }
    assert len({name for d in data.values() for name in d.classes}) == 150
    for dataset in data.values():
        rows, lengths = tokens(dataset)
        assert dataset.counts.tolist() == [150] * 50
        assert lengths.min() >= 1
        assert lengths.max() <= 28  # nothing is cut at 32
        assert torch.equal((rows != 0).sum(1), lengths)
        assert rows.min() >= 0
        assert rows.max() < len(vocabulary)
    assert len(vocabulary) == 3317
    rows, lengths = tokens(data["test"])
    assert (rows == UNKNOWN).sum() / lengths.sum() == pytest.approx(0.087, abs=5e-4)


def test_the_real_domains(shared_data: Path) -> None:
    root = shared_data / "clinc150"
    data, *_ = load_clinc150(root, split="domain")
    domains = json.loads((root / "data/domains.json").read_text())
    sides = {
        d: {p for p in data if set(data[p].classes) & set(names)} for d, names in domains.items()
    }
    assert all(len(side) == 1 for side in sides.values())
    translate = read_utterances(root / "data/data_full.json")["translate"]
    assert {part: len(texts) for part, texts in translate.items()} == {
        "train": 100,
        "val": 20,
        "test": 30,
    }
