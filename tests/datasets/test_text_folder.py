"""Texts of one's own: what is read of folders and tables, and what is said of what is wrong."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_text_folder

from fewshot import FewshotError, TextFolderDataModule
from fewshot.datasets.reading.text_tables import read_table
from fewshot.datasets.text_folder import TextForm, holds_texts, mended, read_own_texts
from fewshot.episodes.streams import Stage

WORDS = TextForm(words=True)


def table(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def refusal(root: Path, **arguments: Any) -> str:
    with pytest.raises(FewshotError) as error:
        TextFolderDataModule(str(root), **arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_two_columns_of_one_name_are_refused(name: str, tmp_path: Path) -> None:
    content = "text,id,id,,,text,label\na,1,1,,,b,x\n"
    if name == "a.tsv":
        content = content.replace(",", "\t")
    with pytest.raises(FewshotError, match="has several columns called 'text', 'id'; give each"):
        read_table(table(tmp_path / name, content))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\n"a, ""quoted""\nline",x\n\nb,y\n'),
        ("a.csv", 'LABEL;Text\nx;"a, ""quoted""\nline"\ny;b\n'),
        ("a.tsv", 'utterance\tintent\n"a, ""quoted""\nline"\tx\nb\ty\n'),
        ("a.csv", 'id,body,class\n1,"a, ""quoted""\nline",x\n2,b,y\n'),
        ("a.csv", 'words,label\n"a, ""quoted""\nline",x\nb,y\n'),  # the only other column
        ("a.csv", 'text,kind\n"a, ""quoted""\nline",x\nb,y\n'),
        (
            "a.jsonl",
            '{"text": "a, \\"quoted\\"\\nline", "label": "x"}\n{"label": "y", "text": "b"}',
        ),
    ],
)
def test_a_table_by_the_names_of_its_columns(name: str, content: str, tmp_path: Path) -> None:
    found = read_table(table(tmp_path / name, content))
    assert found.texts == {"x": ['a, "quoted"\nline'], "y": ["b"]}
    assert not found.faults
    assert not found.needed


def test_quotes_of_a_table_with_tabs_are_characters_where_they_are_not_csvs(tmp_path: Path) -> None:
    found = read_table(table(tmp_path / "a.tsv", 'text\tlabel\n"he" said\tx\n"no end\ty\n'))
    assert found.texts == {"x": ['"he" said'], "y": ['"no end']}
    assert not found.faults


def test_every_fault_of_a_table_is_that_of_its_line(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv",
        'text,label\ngood,x\n"no end,x\na,b,c\n,x\nno label\n!!!,x\n"odd" quote,x\n\0,x\ngood,y\n',
    )
    found = read_table(path, words=True)
    assert found.texts == {"x": ["good"], "y": ["good"]}
    faults = [fault for of in found.faults.values() for fault in of]
    for number, why in (
        (3, "cannot be split into columns"),
        (4, "has 3 columns, where the first line names 2"),
        (5, "has no text"),
        (6, "has no label"),
        (7, "has no word"),
        (8, "cannot be split into columns"),
        (9, "has characters of control"),
    ):
        assert any(f"{path} line {number} {why}" in fault for fault in faults), (number, faults)
    assert len(faults) == 7


def test_labels_of_numbers_and_what_is_no_object(tmp_path: Path) -> None:
    rows = [
        {"text": "a", "label": 0},
        {"text": "b", "label": True},
        {"text": None, "label": 0},
        [1],
    ]
    found = read_table(table(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)) + "\n{bad"))
    assert found.texts == {"0": ["a"], "True": ["b"]}
    told = [fault for of in found.faults.values() for fault in of]
    assert [fault.partition(" line ")[2].partition(":")[0] for fault in told] == [
        *("3 has no text", "4 is no object of JSON", "5 is no JSON"),
    ]


def test_columns_that_no_name_tells_are_found_by_what_they_hold(tmp_path: Path) -> None:
    rows = [f"{i},some words of text {i},k{i % 8}" for i in range(48)]
    path = table(tmp_path / "a.csv", "n,foo,bar\n" + "\n".join(rows))
    message = refusal(path)
    assert "of the columns 'n', 'foo', 'bar' none is called text and label" in message
    works = "what works: add --data.text_column=foo --data.label_column=bar to the command"
    assert message.endswith(works)
    data = TextFolderDataModule(str(path), text_column="foo", label_column="bar")
    assert (data.way, data.shot, data.queries) == (2, 3, 3)
    assert "no column 'fo'; did you mean 'foo'?" in refusal(path, text_column="fo")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("\ufeffcaf\u00e9\n\nna\u00efve\n".encode(), ["caf\u00e9", "na\u00efve"]),
        ("caf\u00e9\r\nna\u00efve".encode("utf-16"), ["caf\u00e9", "na\u00efve"]),
        ("one\n\ufefftwo\u2028three".encode(), ["one", "two\u2028three"]),
    ],
)
def test_encodings_that_say_so(content: bytes, expected: list[str], tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    assert read_own_texts(tmp_path).texts == {"a": expected}


def test_a_file_of_another_encoding_is_one_line_with_what_works(tmp_path: Path) -> None:
    root = fake_text_folder(tmp_path / "texts")
    (root / "greet.txt").write_bytes("caf\u00e9 one\nna\u00efve two\nplain\nmore".encode("cp1252"))
    (root / "thank.txt").write_text("caf\u00e9 in UTF-8\nb\nc\nd", encoding="utf-8")
    message = refusal(root)
    assert "greet.txt line 1 is no text in UTF-8: 'caf\\xe9 one'" in message
    assert "line 2" in message
    assert message.endswith("what works: add --data.encoding=cp1252 to the command")
    texts = TextFolderDataModule(str(root), encoding="cp1252").examine().texts
    assert texts["greet"] == ["caf\u00e9 one", "na\u00efve two", "plain", "more"]
    assert texts["thank"][0] == "caf\u00e9 in UTF-8"  # what is UTF-8 stays so
    assert "encoding 'cp99' is unknown" in refusal(root, encoding="cp99")
    (root / "order.txt").write_bytes(b"\x81\x8d\na\nb\nc")  # Windows has no such letters
    found, works = mended(read_own_texts(root, WORDS), WORDS)
    assert works == {"skip_broken": "true"}
    assert found.counts["order"] == 3


def test_split_folders_and_given_classes(tmp_path: Path) -> None:
    fake_text_folder(tmp_path / "all")
    for number, path in enumerate(sorted((tmp_path / "all").iterdir())):
        split = ("train", "val", "test", "train")[number // 2]
        (tmp_path / "split" / split / path.stem).mkdir(parents=True)
        path.rename(tmp_path / "split" / split / path.stem / "part.txt")
    data = TextFolderDataModule(str(tmp_path / "split"))
    facts = data.protocol()
    assert facts["split"] == "split folders"
    assert {split: len(of) for split, of in facts["classes"].items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    again = TextFolderDataModule(str(tmp_path / "split"), classes=facts["classes"])
    assert again.protocol()["split"] == "given classes"
    assert again.protocol()["classes"] == facts["classes"]
    wrong = {**facts["classes"], "test": ["gret"]}
    assert "has no class 'gret'; did you mean 'greet'?" in refusal(
        tmp_path / "split", classes=wrong
    )


def test_what_is_said_of_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = fake_text_folder(tmp_path / "texts")
    (root / "notes.md").write_text("no class")
    with (root / "greet.txt").open("a") as file:
        file.write(f"\nthank a please\nagain\nagain\n{'word ' * 100}")
    with caplog.at_level(logging.INFO):
        data = TextFolderDataModule(str(root))
        assert data.texts.documents > 0
    for part in (
        "passed over 1 file (1 .md), which are no .txt",
        "1 text is in several classes: 'thank a please' (greet, thank)",
        "1 text is in the same class again",
        "1 of 52 texts have more words than max_length 64 (up to 100)",
        "8 classes of 6 to 10 texts: 4 train, 2 validate, 2 test; 2-way 3-shot, 3 queries a class",
    ):
        assert part in caplog.text, part


def test_fewer_than_six_classes_are_split_by_text(tmp_path: Path) -> None:
    data = TextFolderDataModule(str(fake_text_folder(tmp_path / "texts", classes=3, texts=12)))
    parts = [
        {tuple(row) for row in data.datasets[stage].inputs["tokens"].tolist()}  # type: ignore[index]
        for stage in ("train", "val", "test")
    ]
    assert data.protocol()["split"] == "texts, drawn, split_seed 0"
    assert [len(data.datasets[stage].classes) for stage in ("train", "val", "test")] == [3, 3, 3]
    # words of other splits are unknown, so that rows of val and test may be alike
    assert not parts[0] & (parts[1] | parts[2])
    assert "split_by=texts" in refusal(
        fake_text_folder(tmp_path / "more", classes=4, texts=12), split_by="classes"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "is no folder that can be read"),
        (lambda root: root.mkdir(), "holds no classes; give <class>.txt"),
        (lambda root: root.write_text("x"), "is no table of texts; give <class>.txt"),
    ],
)
def test_what_is_no_folder_of_texts(make: Any, message: str, tmp_path: Path) -> None:
    make(tmp_path / "texts")
    assert message in refusal(tmp_path / "texts")


def test_several_tables_are_named(tmp_path: Path) -> None:
    for name in ("train.csv", "test.csv"):
        table(tmp_path / name, "text,label\na,b\n")
    assert "holds 2 tables (test.csv, train.csv); give one of them" in refusal(tmp_path)
    assert "there is one column alone, 'text'" in refusal(table(tmp_path / "x.csv", "text\na\n"))
    assert "has no line that can be read" in refusal(table(tmp_path / "y.csv", "\n"))


def test_images_are_no_texts(tmp_path: Path) -> None:
    assert holds_texts(fake_text_folder(tmp_path / "texts"))
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/1.jpg").write_bytes(b"")
    (tmp_path / "photos/cat/1.txt").write_text("where the cat is")
    (tmp_path / "photos/cat/notes.txt").write_text("")
    assert not holds_texts(tmp_path / "photos")


def test_sizes_that_are_auto_leave_a_class_for_queries_of_none(tmp_path: Path) -> None:
    for number in (3, 5, 8):
        root = fake_text_folder(tmp_path / f"{number}", classes=number, texts=12)
        data = TextFolderDataModule(str(root), nota_rate=0.5, train_nota_rate=1.0)
        rates: dict[Stage, float] = {"train": 1.0, "val": 0.5, "test": 0.5}
        for stage, rate in rates.items():
            targets = data.stream(stage)[0].query.targets
            assert int((targets == data.way).sum()) == rate * data.queries
    with pytest.raises(FewshotError, match=r"until 9 classes have 2 or more each, or 3 classes 6$"):
        TextFolderDataModule(str(fake_text_folder(tmp_path / "2", classes=2)), nota_rate=1.0)
