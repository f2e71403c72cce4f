"""Texts of one's own: the README's command at the first try, 100 odd ones, `fewshot check`."""

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from commands import FEW, QUIET, fit, results
from own_data import what_works

from fewshot import FewshotError, TextFolderDataModule
from fewshot.cli.main import main

README = (Path(__file__).parents[1] / "README.md").read_text()
SMALL = ("--model.backbone.out_features=16", "--trainer.max_epochs=1")


def test_twelve_files_of_ten_texts_at_the_first_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The README's command trains, tests and predicts, of files of lines and of a table."""
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    rows = []
    for number in range(12):
        word = "abcdefghijkl"[number] * 6
        lines = [f"{word} {word}er and {i}" for i in range(10)]
        Path(f"texts/kind{number}.txt").write_text("\n".join(lines))
        rows += [(line, f"kind{number}") for line in lines]
    with Path("texts.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    assert main(["check", "texts"]) == 0
    told = capsys.readouterr().out
    assert "12 classes of 10 texts: 6 train, 3 validate, 3 test; 3-way 5-shot, 5 queries" in told
    line = next(
        line for line in README.splitlines() if line.startswith("fewshot fit --config text")
    )
    words = shlex.split(line, comments=True)
    assert told.splitlines()[-1].split() == words  # it tells the README's command
    run = fit(tmp_path, *words[2:], *SMALL)
    found = results(run)
    assert (found["way"], found["shot"], found["queries"]) == (3, 5, 5)
    assert found["metrics"]["accuracy"]["mean"] > 1 / 3
    again = fit(tmp_path, *[word.replace("texts", "texts.csv") for word in words[2:]], *SMALL)
    assert results(again)["classes"] == found["classes"]
    assert results(again)["metrics"] == found["metrics"]
    best = f"--ckpt_path={run}/checkpoints/best.ckpt"
    for support, query in (("texts", "texts/kind3.txt"), ("texts.csv", "texts.csv")):
        assert main(["predict", best, f"--support={support}", f"--query={query}"]) == 0
        named = list(csv.DictReader(Path("predictions.csv").read_text().splitlines()))
        assert len(named) == (10 if query.endswith("txt") else 120)
        assert {"text", "class", "p(kind0)"} <= set(named[0])
    assert {row["label"] for row in named} == {f"kind{number}" for number in range(12)}


# ---------------------------------------------------------------------- texts at random


def random_texts(root: Path, seed: int) -> Path:
    """2 to 60 classes of 1 to 40 texts, one of ten odd, as files of lines or as a table."""
    rng = np.random.default_rng(seed)
    classes: dict[str, list[bytes]] = {}
    for number in range(int(rng.integers(2, 61))):
        lines = []
        for i in range(int(rng.integers(1, 41))):
            line = f"text {i} of kind{number}, {rng.integers(99)}".encode()
            if rng.random() < 0.1:
                odd = [b"caf\xe9 " + line, b"", b"in every class", line * 200, b'"q" ' + line]
                odd += [b"?!", b"\0" + line, b"\xff\xfe\x81" + line] * (seed % 2)  # broken
                line = odd[rng.integers(len(odd))]
            lines.append(line)
        classes[f"class {number}"] = lines
    form = (".txt", ".csv", ".tsv", ".jsonl")[seed // 2 % 4]
    if form == ".txt":
        root.mkdir()
        (root / "notes.md").write_text("no class")
        (root / ".hidden.txt").write_text("no class")
        for name, lines in classes.items():
            (root / f"{name}.txt").write_bytes(b"\n".join(lines))
        return root
    path = root.with_suffix(form)
    rows = [(line, name.encode()) for name, lines in classes.items() for line in lines]
    columns = [(b"utterance", b"intent"), (b"what", b"which")][seed // 8 % 2]
    path.write_bytes(
        b"\n".join(_row(row, columns, form) for row in [columns, *rows][form == ".jsonl" :])
    )
    return path


def _row(row: tuple[bytes, bytes], columns: tuple[bytes, bytes], form: str) -> bytes:
    if form == ".jsonl":
        text, label = (cell.decode("latin-1") for cell in row)
        value = json.dumps({columns[0].decode(): text, columns[1].decode(): label})
        return value.encode() if len(row[0]) % 7 else value.encode()[:-3]  # some are cut off
    if form == ".tsv":
        return b"\t".join(row)
    quoted = row[0] if b'"' in row[0] else b'"' + row[0] + b'"'  # some quotes are odd
    return quoted + b"," + row[1]


def set_up(root: Path, *options: str) -> None:
    """Read the texts and draw an episode of each stage."""
    pairs = (option.removeprefix("--data.").split("=") for option in options)
    arguments = {name: yaml.safe_load(value) for name, value in pairs}
    data = TextFolderDataModule(str(root), **arguments)
    for stage in ("train", "val", "test"):
        episode = data.stream(stage)[0]
        assert len(episode.query.targets) == data.way * data.queries


@pytest.mark.parametrize("seed", range(16))
def test_random_texts_serve_or_say_what_works(seed: int, tmp_path: Path) -> None:
    root = random_texts(tmp_path / "texts", seed)
    try:
        set_up(root)
    except FewshotError as error:
        options = what_works(str(error), "texts")
        if options is None:
            assert len(root.read_bytes() if root.is_file() else [*root.iterdir()]) < 9
            return
        set_up(root, *options)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_random_texts_train_or_say_what_works(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = random_texts(tmp_path / "texts", seed)
    learner = ("--model=PrototypicalNetwork", "--model.backbone=BagOfWords")
    args = ["--data=TextFolderDataModule", f"--data.root={root}", *learner, *FEW, *QUIET]
    args += ["--trainer.max_epochs=1", f"--trainer.default_root_dir={tmp_path}"]
    if main(["fit", *args]) == 0:
        return
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith("fewshot: error: "))
    options = what_works(line, "texts")
    assert options is not None, line
    assert main(["fit", *args, *options]) == 0


# ---------------------------------------------------------------------- fewshot check


def test_check_says_what_texts_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "my texts.csv"
    rows = [f"{i},some words of {i},k{i % 8}" for i in range(48)]
    path.write_text("\n".join(["n,foo,bar", *rows, "48,some words of 1,k2", "49,!!!,k3"]))
    assert main(["check", str(path)]) == 0
    told = capsys.readouterr().out
    for part in (
        f"{path}: 8 classes, 49 texts",
        "most: k2 (7)",
        "words: 4 to 4 a text, half of them up to 4",
        "none is called text and label",
        "the texts are those of the column 'foo', the labels of 'bar'",
        "1 text is in several classes: 'some words of 1' (k1, k2)",
        "1 line cannot be read: ",
        "line 51 has no word: '49,!!!,k3'",
        "1-shot: 2-way (5 queries)",
        "8 classes of 6 to 7 texts: 4 train, 2 validate, 2 test; 2-way 3-shot, 3 queries a class",
    ):
        assert part in told, part
    assert told.splitlines()[-1].strip() == (
        f"fewshot fit --config text_folder/protonet --data.root '{path}'"
        " --data.text_column=foo --data.label_column=bar --data.skip_broken=true"
    )
    assert main(["check", str(tmp_path / "none")]) == 2
