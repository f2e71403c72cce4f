"""FewRel: none of the above, what training must not see, and every refusal."""

import gc
import json
import string
from pathlib import Path

import pytest
import torch
from fakes import fake_bert, fake_fewrel

from fewshot.backbones import HuggingFaceEncoder
from fewshot.datamodules.fewrel import FewRelDataModule
from fewshot.datasets.fewrel import (
    MARKERS,
    PUNCTUATION,
    UNUSED,
    Instance,
    Relations,
    placed,
    read_relations,
    without_leaks,
)
from fewshot.datasets.fewrel_files import find_file
from fewshot.datasets.reading.texts import TermSplitter, TextOptions
from fewshot.errors import FewshotError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fake_fewrel(tmp_path_factory.mktemp("fewrel"))


def module(root: Path, **kwargs: object) -> FewRelDataModule:
    arguments = {"train": "train_wiki_subset", "test": "val_wiki", "val_relations": 8, **kwargs}
    # of several types
    return FewRelDataModule(root=str(root), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(("rate", "none"), [(1, 5), (2, 10), (0.2, 1)])
def test_none_of_the_above_has_its_rate_and_the_label_n(root: Path, rate: float, none: int) -> None:
    data = module(root, nota_rate=rate, unknown_ids=100_000)
    assert data.task == {"kind": "classification", "way": 5, "train_way": 5, "nota": True}
    for number in range(20):
        support, query = data.stream("test")[number]
        assert support.targets.tolist() == list(range(5))
        assert query.targets.tolist() == [n for n in range(5) for _ in range(5)] + [5] * none
        assert isinstance(support.inputs, dict)
        assert isinstance(query.inputs, dict)
        words, asked = support.inputs["tokens"][:, 2], query.inputs["tokens"][:, 2]
        assert torch.equal(asked[:25], words.repeat_interleave(5))
        assert not set(asked[25:].tolist()) & set(words.tolist())


def test_without_none_the_episodes_are_the_same(root: Path) -> None:
    one, two = module(root).stream("val")[3], module(root, nota_rate=1).stream("val")[3]
    assert torch.equal(one.query.targets, two.query.targets[:25])
    assert isinstance(one.query.inputs, dict)
    assert isinstance(two.query.inputs, dict)
    assert torch.equal(one.query.inputs["tokens"], two.query.inputs["tokens"][:25])


def test_the_hidden_test_must_be_named_and_stands_in_the_result(root: Path) -> None:
    with pytest.raises(
        FewshotError, match=r"test relations are hidden; set data\.test to val_wiki"
    ):
        module(root, test=None).setup("fit")
    assert module(root).protocol()["split"].endswith("tested on val_wiki")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokens": [" "]}, r"line 1: P3\[1\] has no words"),
        ({"h": ["a", "Q1", [[7]]]}, r"line 1: P3\[1\] has 'h' at \[7\], outside of its 7 tokens"),
        ({"t": ["a", "Q1", [[-1]]]}, r"P3\[1\] has 't' at \[-1\], outside"),
        ({"h": None}, r"P3\[1\] is .*, not tokens with entities"),
    ],
)
def test_a_wrong_item_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = fake_fewrel(tmp_path) / "train_wiki_subset.json"
    content = json.loads(file.read_text())
    content["P3"][1] |= change
    file.write_text(json.dumps(content))
    with pytest.raises(FewshotError, match=message) as caught:
        read_relations(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_relation_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"P1": [], "P1": []}')
    with pytest.raises(
        FewshotError, match=r"x\.json cannot be read as JSON \(the key 'P1' stands there twice\)"
    ):
        read_relations(tmp_path / "x.json")


@pytest.mark.parametrize("test", ["val_wiki", "val_pubmed"])
def test_nothing_of_the_real_test_is_in_training(shared_data: Path, test: str) -> None:
    root = shared_data / "fewrel"
    data = module(root, test=test, val_relations=12)
    train, held, asked = (set(data.datasets[part].classes) for part in ("train", "val", "test"))
    assert not train & asked
    assert not train & held
    assert (len(train), len(held)) == (52, 12)
    tested = [one for found in read_relations(find_file(root, test)).values() for one in found]
    texts = {
        " ".join(token.strip().lower() for token in one.tokens if token.strip()) for one in tested
    }
    known = data.datasets["train"].inputs
    assert isinstance(known, dict)
    words = data.texts.vocabulary
    rows = zip(known["tokens"].tolist(), known["lengths"].tolist(), strict=True)
    assert not texts & {" ".join(words[i] for i in row[:length]) for row, length in rows}


def test_the_vocabulary_is_the_same_for_every_test(shared_data: Path) -> None:
    wiki, pubmed = (
        module(shared_data / "fewrel", test=f"val_{name}", val_relations=12)
        for name in ("wiki", "pubmed")
    )
    kept, more = (int(data.datasets["train"].counts.sum()) for data in (wiki, pubmed))
    assert kept < more  # whose sentences are also left out where they are copies
    # so that one learner can be tested on both
    assert wiki.texts.vocabulary == pubmed.texts.vocabulary


def test_no_real_entity_pair_of_the_test_stays_in_training(shared_data: Path) -> None:
    train, tested = (
        read_relations(find_file(shared_data / "fewrel", f))
        for f in ("train_wiki_subset", "val_wiki")
    )

    def pairs(relations: Relations) -> set[frozenset[str]]:
        return {frozenset(one.pair) for found in relations.values() for one in found}

    assert len(pairs(train) & pairs(tested)) > 70  # the original's files share them
    assert not pairs(without_leaks(train, tested.values())) & pairs(tested)


def instance(words: list[str], head: tuple[int, int], tail: tuple[int, int]) -> Instance:
    return Instance(tuple(words), head, tail, ("Q1", "Q2"))


def terms(data: FewRelDataModule, part: str, row: int) -> tuple[list[str], list[str], list[str]]:
    """A sentence's terms, and those of its mentions of head and tail."""
    found = data.datasets[part].inputs
    assert isinstance(found, dict)
    ids = found["tokens"][row, : found["lengths"][row]].tolist()
    sentence = [data.texts.vocabulary[i] for i in ids]
    return sentence, *(sentence[slice(*found[name][row].tolist())] for name in ("head", "tail"))  # type: ignore[return-value]


def test_words_have_markers_of_their_own(root: Path) -> None:
    sentence, head, tail = terms(module(root, markers=True), "train", 0)
    assert head == ["<head>", sentence[1], "</head>"]
    assert sentence[0] == "<head>"
    assert tail == ["<tail>", "the", sentence[-3], "</tail>"]
    assert module(root, markers=True).protocol()["markers"] is True


@pytest.mark.parametrize("unused", [True, False])
def test_a_pretrained_tokenizer_has_markers(root: Path, tmp_path: Path, unused: bool) -> None:
    letters = [
        mark + letter for letter in string.ascii_letters + string.digits for mark in ("", "##")
    ]
    extra = [*letters, "@", "#", *([f"[unused{i}]" for i in range(1, 5)] if unused else [])]
    bert = fake_bert(tmp_path / "bert", extra)
    data = module(root, markers=True, tokenizer=str(bert), max_length=64)
    first, second, third, last = UNUSED if unused else PUNCTUATION
    for part in ("train", "val", "test"):
        sentence, head, tail = terms(data, part, 5)
        assert (sentence[0], sentence[-1]) == ("[CLS]", "[SEP]")
        assert (head[0], head[-1], tail[0], tail[-1]) == (first, second, third, last)
        joined = [
            "".join(piece.removeprefix("##") for piece in found[1:-1]) for found in (head, tail)
        ]
        assert joined[0].startswith("headp")  # BERT's tokenizer puts words in lower case
        assert joined[1].startswith("thetailp")
        assert [sentence.count(mark) for mark in UNUSED] == ([1] * 4 if unused else [0] * 4)
    network = HuggingFaceEncoder(data.vocab_size, tokenizer=str(bert))
    support = data.stream("test")[0].support
    assert network(support.inputs).shape == (5, 8)


@pytest.mark.parametrize(
    ("head", "tail", "first"),
    [
        ((70, 72), (50, 51), 42),  # both fit, at the end of the window
        ((3, 4), (10, 12), 0),
        ((98, 100), (90, 91), 70),
        ((10, 12), (70, 72), 10),  # too far apart: the first of them
        ((70, 72), (10, 12), 10),
    ],
)
def test_a_long_sentence_is_cut_to_its_entities(
    head: tuple[int, int], tail: tuple[int, int], first: int
) -> None:
    words = [f"w{i}" for i in range(100)]
    cut, *places = placed(
        instance(words, head, tail), TermSplitter(TextOptions(max_length=30)), None
    )
    assert cut == words[first : first + 30]
    for (start, end), (before, after) in zip((head, tail), places, strict=True):
        if start < first + 30:
            assert cut[before:after] == words[start:end]
        else:
            assert (before, after) == (30, 30)  # past the window


def test_markers_stay_in_the_window() -> None:
    words = [f"w{i}" for i in range(100)]
    markers = [[marker] for marker in MARKERS]
    cut, head, tail = placed(
        instance(words, (60, 62), (50, 51)), TermSplitter(TextOptions(max_length=16)), markers
    )
    assert len(cut) == 16
    assert cut[slice(*head)] == ["<head>", "w60", "w61", "</head>"]
    assert cut[slice(*tail)] == ["<tail>", "w50", "</tail>"]


def test_the_search_for_garbage_goes_on_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(FewshotError, match=r"no train_wiki_subset\.json in"):
        module(tmp_path).setup("fit")
    assert gc.isenabled()
