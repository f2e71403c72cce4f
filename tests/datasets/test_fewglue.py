"""FewGLUE's files: what is read, how patterns make ids, and every refusal with file and line."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import fake_fewglue, fewglue_record

from fewshot.datasets.fewglue import Row, answer_worth, read_fewglue
from fewshot.datasets.fewglue_patterns import TASKS, Pattern
from fewshot.datasets.fewglue_published import lower_choices, published
from fewshot.datasets.reading.pattern_encoding import PatternEncoder
from fewshot.datasets.reading.pretrained_tokenizer import PretrainedTokenizer
from fewshot.errors import FewshotError


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="needs the extra fewshot-lightning[text]")
    return fake_fewglue(tmp_path_factory.mktemp("fewglue") / "root")


@pytest.fixture(scope="module")
def tokenizer(root: Path) -> PretrainedTokenizer:
    return PretrainedTokenizer(str(root / "bert"))


def said(encoder: PatternEncoder, ids: Any, length: Any = None) -> str:
    pieces = encoder.tokenizer.convert_ids_to_tokens(
        [int(i) for i in ids[: None if length is None else int(length)]]
    )
    return " ".join(pieces).replace(" ##", "")


@pytest.mark.parametrize("task", TASKS)
def test_each_task_is_read_and_encoded(
    root: Path, tokenizer: PretrainedTokenizer, task: str
) -> None:
    rows = read_fewglue(root, task, "train")
    assert len(rows) == {"MultiRC": 96, "ReCoRD": 48}.get(task, 32)
    assert len({row.question for row in rows}) == 32
    assert {row.label for row in rows} == ({0} if task in ("COPA", "ReCoRD") else {0, 1})
    assert {row.label for row in read_fewglue(root, task, "unlabeled")} == {-1}
    encoder = PatternEncoder(tokenizer, 128)
    views = encoder.encode(rows[:4], TASKS[task])
    tokens, lengths, places, answers = (
        views[name] for name in ("tokens", "lengths", "places", "answers")
    )
    own = task in ("COPA", "ReCoRD")  # each candidate has a sequence of its own
    sequences = {"COPA": 2, "ReCoRD": 4}.get(task, 1)
    assert (
        tokens.shape[:3]
        == (4, 1 + len(TASKS[task].patterns), sequences)
        == lengths.shape
        == places.shape
    )
    assert answers.shape[:3] == (4, tokens.shape[1], TASKS[task].way or 4)
    masks = tokens == encoder.special["mask"]
    assert not masks[:, 0].any()
    for row in range(4):
        for view in range(1, tokens.shape[1]):
            for s in range(sequences):
                number = int((answers[row, view, s] >= 0).sum()) if own else 1
                assert (lengths[row, view, s] > 0) == (number > 0)
                (where,) = masks[row, view, s].nonzero(as_tuple=True)
                assert where.tolist() == [int(places[row, view, s]) + i for i in range(number)]


def test_the_published_patterns() -> None:
    assert [words for _, words in published("CB").patterns] == [
        *[("Yes", "No", "Maybe")] * 4,
        ("true", "false", "neither"),
    ]
    assert [words for _, words in published("MultiRC").patterns] == [
        *[("No", "Yes")] * 3,
        ("False", "True"),
    ]
    assert [words for _, words in published("RTE").patterns][3:] == [
        ("Yes", "No"),
        ("true", "false"),
    ]
    boolq = [words for _, words in published("BoolQ").patterns]
    assert boolq == [("No", "Yes"), ("false", "true")] * 3
    assert published("WiC").patterns[2].words == ("2", "b")
    assert published("ReCoRD") == TASKS["ReCoRD"]


SAID = {
    "CB": [
        '"the b" ? [SEP] [MASK] , "A."',
        "the b ? [SEP] [MASK] , A.",
        '"the b" ? [SEP] [MASK] . "A."',
        "the b ? [SEP] [MASK] . A.",
        'A. question: the b." true, false or neither? answer: [MASK]',
    ],
    "RTE": [
        '"the b" ? [SEP] [MASK] , "A."',
        "the b ? [SEP] [MASK] , A.",
        '"the b" ? [SEP] [MASK] . "A."',
        "the b ? [SEP] [MASK] . A.",
        'A. question: the b." True or False? answer: [MASK]',
    ],
    "COPA": [
        '"it was" or "the a" ? A because [MASK] .',
        "it was or the a ? A because [MASK] .",
    ],
    "BoolQ": [
        "A. . Question: is b? ? Answer: [MASK] .",
        "A. . Question: is b? ? Answer: [MASK] .",
        "A. . Based on the previous passage, is b? ? [MASK] .",
        "A. . Based on the previous passage, is b? ? [MASK] .",
        "Based on the following passage, is b? ? [MASK] . A.",
        "Based on the following passage, is b? ? [MASK] . A.",
    ],
    "MultiRC": [
        "A. . Question: is b? ? Is it a ? [MASK] .",
        'A. . Question: is b? ? Is the correct answer "a" ? [MASK] .',
        'A. . Based on the previous passage, is b? ? Is "a" a correct answer? [MASK] .',
        "A. is b? - [ [MASK] ] a",
    ],
    "WiC": [
        '"A." / "The b." Similar sense of "b"? [MASK] .',
        "A. The b. Does b have the same meaning in both sentences? [MASK]",
        'b . Sense (1) (a) "A." ( [MASK] ) "The b."',
    ],
}
RECORDS: dict[str, dict[str, Any]] = {
    "CB": {"premise": "A.", "hypothesis": 'the b."', "label": "neutral"},
    "RTE": {"premise": "A.", "hypothesis": 'the b."', "label": "entailment"},
    "COPA": {
        "premise": "A.",
        "choice1": "It was.",
        "choice2": "The a.",
        "question": "cause",
        "label": 0,
    },
    "BoolQ": {"passage": "A.", "question": "is b?", "label": True},
    "MultiRC": {
        "passage": {
            "text": "A.",
            "questions": [{"question": "is b?", "answers": [{"text": "a", "label": 1}]}],
        }
    },
    "WiC": {"word": "b", "sentence1": "A.", "sentence2": "The b.", "label": True},
}


@pytest.mark.parametrize("task", SAID)
def test_what_the_published_patterns_say(task: str, tmp_path: Path) -> None:
    (tmp_path / task).mkdir()
    (tmp_path / task / "val.jsonl").write_text(json.dumps(RECORDS[task]) + "\n")
    (row,) = read_fewglue(tmp_path, task, "val")
    if task == "COPA":
        row = lower_choices(row)
    said = [
        pattern.template.format(mask="[MASK]", sep=" [SEP]", **row.fields)
        for pattern in published(task).patterns
    ]
    # each part becomes pieces by itself, with a blank before it
    assert all(text.startswith(" ") for text in said)
    bare = [re.sub('" ([^"]*) "', r'"\1" ', text) for text in said]
    assert [" ".join(text.split()) for text in bare] == SAID[task]


def test_what_a_pattern_says(root: Path, tokenizer: PretrainedTokenizer) -> None:
    encoder = PatternEncoder(tokenizer, 128)
    row = Row({"premise": "the b.", "hypothesis": "a b"}, 0, "here", 0)
    views = encoder.encode([row], TASKS["CB"])
    texts = [
        said(encoder, *pair)
        for pair in zip(views["tokens"][0, :, 0], views["lengths"][0, :, 0], strict=True)
    ]
    assert texts[0] == "[CLS] the b . [SEP] a b [SEP]"
    assert texts[1] == "[CLS] a b ? [SEP] [MASK] , the b . [SEP]"
    assert [said(encoder, piece) for piece in views["answers"][0, 1]] == ["yes", "no", "maybe"]
    (copa,) = read_fewglue(root, "COPA", "val")[:1]
    views = encoder.encode([copa], TASKS["COPA"])
    answers = [said(encoder, a[a >= 0]) for a in views["answers"][0, 2]]
    assert answers == ["it is a", "it was"]
    choice = said(encoder, views["tokens"][0, 2, 0], views["lengths"][0, 2, 0])
    masks = " ".join(["[MASK]"] * int((views["answers"][0, 2, 0] >= 0).sum()))
    assert choice == f"[CLS] it is a or it was ? a a , because {masks} . [SEP]"


def test_what_records_pattern_says(root: Path, tokenizer: PretrainedTokenizer) -> None:
    rows = read_fewglue(root, "ReCoRD", "val")[:2]
    views = PatternEncoder(tokenizer, 128).encode(rows, TASKS["ReCoRD"])
    encoder = PatternEncoder(tokenizer, 128)
    texts = [said(encoder, views["tokens"][0, 0, c], views["lengths"][0, 0, c]) for c in range(4)]
    passage = "ann and a bell . [UNK] bell met ann . cy doe came ."
    candidates = ["ann", "a bell", "bell", "cy doe"]
    assert texts == [f"[CLS] {passage} a : {who} [UNK] s was . [SEP]" for who in candidates]
    masked = said(encoder, views["tokens"][0, 1, 1], views["lengths"][0, 1, 1])
    number = int((views["answers"][0, 1, 1] >= 0).sum())
    assert masked == f"[CLS] {passage} a : {' '.join(['[MASK]'] * number)} [UNK] s was . [SEP]"
    assert [said(encoder, a[a >= 0]) for a in views["answers"][0, 1]] == candidates
    assert views["lengths"][1, :, 3].tolist() == [0, 0]  # the second question has three candidates
    assert (views["answers"][1, 1, 3] == -1).all()


def test_records_answers_are_one_by_one_in_training_and_all_together_where_they_are_judged(
    root: Path,
) -> None:
    train, val = read_fewglue(root, "ReCoRD", "train"), read_fewglue(root, "ReCoRD", "val")
    assert [(row.question, row.choices, row.label) for row in train[1:3]] == [
        (1, ("Ann", "Bell"), 0),
        (1, ("B Bell", "Bell"), 0),
    ]
    assert [tuple(exact for exact, _ in row.worth) for row in train[1:3]] == [(1.0, 0.0)] * 2
    assert val[1].choices == ("Ann", "B Bell", "Bell")
    assert val[1].worth[:2] == ((1.0, 1.0), (1.0, 1.0))
    assert val[1].worth[2] == pytest.approx((0.0, 2 / 3))  # B Bell and Bell share a word


def test_the_worth_of_an_answer_is_superglues() -> None:
    """Lower case, no punctuation, no articles; F1 of words, the best over the answers."""
    worth = answer_worth(["The U.S.", "us", "New York City", "York"], ["US", "New York"])
    assert np.array(worth) == pytest.approx(
        np.array([[1.0, 1.0], [1.0, 1.0], [0.0, 0.8], [0.0, 2 / 3]])
    )


def test_truncation_takes_the_longest_text_and_never_the_mask(
    root: Path, tokenizer: PretrainedTokenizer
) -> None:
    encoder = PatternEncoder(tokenizer, 16)
    row = Row({"passage": "x " * 300, "question": "is a b"}, 0, "here, line 1", 0)
    task = TASKS["BoolQ"]._replace(
        patterns=(Pattern("{passage}. {question}? {mask}.", ("no", "yes")),)
    )
    views = encoder.encode([row], task)
    assert said(encoder, views["tokens"][0, 1, 0]) == "[CLS] x x x x x x . is a b ? [MASK] . [SEP]"
    assert int(views["places"][0, 1, 0]) == 13
    with pytest.raises(
        FewshotError, match=r"^here, line 1: max_length 7 is too small for '.*'; raise it$"
    ):
        PatternEncoder(tokenizer, 7).encode([row], task)


def test_a_verbaliser_of_several_pieces_is_refused(tokenizer: PretrainedTokenizer) -> None:
    task = TASKS["BoolQ"]._replace(patterns=(Pattern("{question} {mask}", ("nope", "yes")),))
    row = Row({"passage": "x", "question": "y"}, 0, "here", 0)
    with pytest.raises(FewshotError, match=r"^the verbaliser 'nope' is not one piece"):
        PatternEncoder(tokenizer, 64).encode([row], task)


BROKEN: list[tuple[str, Any, str]] = [
    ("CB", "{", "is no JSON"),
    ("CB", [1], "holds no object"),
    ("CB", {"premise": None}, "premise is None, not of type str"),
    ("CB", {"hypothesis": "  "}, "hypothesis is empty"),
    (
        "CB",
        {"label": "other"},
        "the label 'other' is none of 'entailment', 'contradiction', 'neutral'",
    ),
    ("BoolQ", {"label": 1}, "label is 1, not of type bool"),
    ("BoolQ", {"question": ...}, "lacks the field 'question'"),
    ("COPA", {"question": "why"}, "question is 'why', neither 'cause' nor 'effect'"),
    ("COPA", {"label": 2}, "the label 2 is none of 0, 1"),
    (
        "WSC",
        {"target": {"span2_index": 9, "span2_text": "it", "span1_text": "a"}},
        "span2_index 9 lies outside",
    ),
    ("ReCoRD", {"qas": [{"query": "who was", "answers": []}]}, "no @placeholder in the query"),
    (
        "ReCoRD",
        {"qas": [{"query": "@placeholder", "answers": [{"text": "Dee"}]}]},
        "no answer is an entity",
    ),
    (
        "ReCoRD",
        {"passage": {"text": "Ann", "entities": [{"start": 0, "end": 3}]}},
        "the entity (0, 3) lies outside",
    ),
    (
        "MultiRC",
        {"passage": {"text": "a", "questions": [{"question": "b", "answers": [3]}]}},
        "holds no object but 3",
    ),
]


@pytest.mark.parametrize(
    ("task", "change", "message"), BROKEN, ids=[message[:24] for *_, message in BROKEN]
)
def test_a_wrong_line_is_named(tmp_path: Path, task: str, change: Any, message: str) -> None:
    wrong = change
    if isinstance(change, dict):
        wrong = {k: v for k, v in {**fewglue_record(task, 1), **change}.items() if v is not ...}
    path = tmp_path / task / "train.jsonl"
    path.parent.mkdir()
    path.write_text(
        f"{json.dumps(fewglue_record(task, 0))}\n{wrong if wrong == '{' else json.dumps(wrong)}\n"
    )
    with pytest.raises(FewshotError) as error:
        read_fewglue(tmp_path, task, "train")
    assert str(error.value).startswith(f"{path}, line 2")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_other_refusals(tmp_path: Path) -> None:
    with pytest.raises(
        FewshotError, match=r"^FewGLUE has no task 'boolq'; did you mean 'BoolQ'\?$"
    ):
        read_fewglue(tmp_path, "boolq", "train")
    with pytest.raises(
        FewshotError, match=r"unlabeled.jsonl is missing; .* set data.unlabeled: 0$"
    ):
        read_fewglue(tmp_path, "CB", "unlabeled")
    (tmp_path / "CB").mkdir()
    (tmp_path / "CB/train.jsonl").write_bytes(b"")
    with pytest.raises(FewshotError, match=r"holds no example"):
        read_fewglue(tmp_path, "CB", "train")
    (tmp_path / "CB/train.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(FewshotError, match=r"is not UTF-8"):
        read_fewglue(tmp_path, "CB", "train")


SIZES = {
    "BoolQ": 3270,
    "CB": 56,
    "COPA": 100,
    "MultiRC": 953,
    "RTE": 277,
    "ReCoRD": 32,
    "WSC": 104,
    "WiC": 638,
}
"""SuperGLUE's validation sets.

Of MultiRC the questions, of ReCoRD, whose own is not at hand, dev32's.
"""


@pytest.mark.parametrize("task", TASKS)
def test_the_real_files(shared_data: Path, task: str) -> None:
    train = read_fewglue(shared_data, task, "train")
    val = read_fewglue(shared_data, task, "dev32" if task == "ReCoRD" else "val")
    assert len({row.question for row in train}) == 32
    assert len({row.question for row in val}) == SIZES[task]
    if task == "ReCoRD":
        assert all(row.worth[row.label] == (1.0, 1.0) for row in (*train, *val))
    else:
        assert {row.label for row in val} == set(range(TASKS[task].way or 0))
    seen, judged = (
        {json.dumps(row.fields, sort_keys=True) for row in rows} for rows in (train, val)
    )
    assert not seen & judged
