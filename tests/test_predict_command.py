"""`fewshot predict --support DIR --query DIR`: what it writes and prints, and how it refuses."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from fakes import fake_image_folder
from forks import python

import fewshot
from fewshot.cli.main import main
from fewshot.datasets.image_folder import load_image_folder

Photos = tuple[Path, Path]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def refusal(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """The one line of a command that must fail."""
    capsys.readouterr()
    assert main(list(args)) == 2
    error = capsys.readouterr().err
    assert error.startswith("fewshot: error: ")
    assert error.count("\n") == 1, error
    return error.removeprefix("fewshot: error: ").rstrip()


def support_of(photos: Photos, folder: Path, shots: dict[str, int]) -> Path:
    """A support of links to the first images of some test classes."""
    for name, number in shots.items():
        (folder / name).mkdir(parents=True)
        for i in range(number):
            (folder / name / f"{i}.png").symlink_to(photos[0] / "test" / name / f"{i}.png")
    return folder


def test_images_are_named(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = support_of(photos, tmp_path / "support", {"k": 1, "m": 3, "n": 2})
    query = photos[0] / "test/m"
    output = tmp_path / "new/named.csv"
    args = [
        "predict",
        f"--ckpt_path={photos[1]}",
        f"--support={support}",
        f"--query={query}",
        f"--output={output}",
    ]
    assert main(args) == 0
    found = rows(output)
    assert list(found[0]) == ["file", "class", "probability", "p(k)", "p(m)", "p(n)"]
    assert [row["file"] for row in found] == sorted(str(query / f"{i}.png") for i in range(16))
    assert {row["class"] for row in found} == {"m"}
    predictions = fewshot.load(photos[1]).adapt(support)(query)
    for row, expected in zip(found, predictions.probabilities.tolist(), strict=True):
        assert [float(row[f"p({name})"]) for name in "kmn"] == pytest.approx(expected, abs=1e-6)
        assert float(row["probability"]) == pytest.approx(max(expected), abs=1e-6)
    printed = capsys.readouterr().out
    assert "PrototypicalNetwork, 3 classes" in printed
    assert printed.count(" m ") == 16
    assert f"predictions: {output}" in printed


def test_the_uncertain_are_left_unnamed(
    photos: Photos,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    args = [
        f"--ckpt_path={photos[1]}",
        f"--support={photos[0] / 'test'}",
        f"--query={photos[0] / 'test'}",
    ]
    assert main(["predict", *args]) == 0
    assert "80 of 80 queries are in the support" in capsys.readouterr().out
    sure = sorted({float(row["probability"]) for row in rows(tmp_path / "predictions.csv")})
    limit = sum(sure[len(sure) // 2 :][:2]) / 2
    assert main(["predict", *args, f"--reject={limit}"]) == 0
    found = rows(tmp_path / "predictions.csv")
    assert len(found) == 80
    assert all((row["class"] == "") == (float(row["probability"]) < limit) for row in found)
    unnamed = sum(row["class"] == "" for row in found)
    assert 0 < unnamed < 80
    assert f"60 more in the file; {unnamed} of 80 unnamed" in " ".join(
        capsys.readouterr().out.split()
    )


def test_texts_are_named(texts: Path, tmp_path: Path) -> None:
    support = tmp_path / "support"
    (support / "weather").mkdir(parents=True)
    (support / "weather/some.txt").write_text("please a please b\nplease c\n")
    (support / "alarm.txt").write_text("intent_140 now\n")
    (tmp_path / "query.txt").write_text("please a, please [b]\n\nnow intent_140\n")
    output = tmp_path / "predictions.csv"
    args = [
        f"--ckpt_path={texts}",
        f"--support={support}",
        f"--query={tmp_path / 'query.txt'}",
        f"--output={output}",
    ]
    assert main(["predict", *args]) == 0
    found = rows(output)
    assert list(found[0]) == ["text", "class", "probability", "p(alarm)", "p(weather)"]
    assert [row["text"] for row in found] == ["please a, please [b]", "now intent_140"]
    assert found[0]["class"] == "weather"


def test_a_benchmarks_episodes_are_meant_where_one_is_named(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refusal(capsys, "predict", "--support=x", "--data.way=5", f"--ckpt_path={photos[1]}")
    assert (
        error
        == "--support names files of your own, --data.way a benchmark's test episodes; leave one of"
        " them out"
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "--ckpt_path or --backbone, --support, --query is missing"),
        (("--ckpt_path=CKPT", "--support=SUPPORT"), "--query is missing"),
        (
            ("--ckpt_path=CKPT", "--suport=SUPPORT"),
            "unknown option '--suport'; did you mean '--support'?",
        ),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT", "--query=SUPPORT", "x"),
            "'x' belongs to no option",
        ),
        (
            ("--ckpt_path=none", "--support=SUPPORT", "--query=SUPPORT"),
            "there is no checkpoint none",
        ),
        (
            ("--ckpt_path=CKPT", "--support=none", "--query=SUPPORT"),
            "none is no folder that can be read",
        ),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT/k", "--query=SUPPORT"),
            "k holds no folders; expected a folder of",
        ),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT", "--query=none"),
            "there is no query none; correct",
        ),
        (("--ckpt_path=CKPT", "--support=SUPPORT", "--query=EMPTY"), "holds no image"),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT", "--query=BROKEN"),
            "broken.png cannot be decoded",
        ),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT", "--query=SUPPORT", "--reject=2"),
            "2 is no probability",
        ),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT", "--query=SUPPORT", "--reject=x"),
            "--reject: x is no probability; give a number from 0 to 1",
        ),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT", "--query=SUPPORT", "--output=EMPTY"),
            "is a folder; name a file",
        ),
        (
            ("--ckpt_path=CKPT", "--support=SUPPORT", "--query=SUPPORT", "--device=gpux"),
            "device 'gpux' cannot be used",
        ),
    ],
)
def test_a_wrong_call_leaves_nothing(
    args: tuple[str, ...],
    message: str,
    photos: Photos,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "BROKEN").mkdir()
    (tmp_path / "BROKEN/broken.png").write_bytes(b"\x89PNG\r\n")
    places = {"CKPT": photos[1], "SUPPORT": photos[0] / "test"}
    places |= {name: tmp_path / name for name in ("EMPTY", "BROKEN")}
    output = tmp_path / "named.csv"
    filled = list(args)
    for name, path in places.items():
        filled = [arg.replace(f"={name}", f"={path}") for arg in filled]
    if not any(arg.startswith("--output") for arg in filled):
        filled.append(f"--output={output}")
    assert message in refusal(capsys, "predict", *filled)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["BROKEN", "EMPTY"]


OWN_LEARNER = '''
from fewshot import PrototypicalNetwork


class Mine(PrototypicalNetwork):
    """A learner of one's own."""
'''


def test_a_learner_of_ones_own_is_named_by_its_import_path(
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "own_predictor.py").write_text(OWN_LEARNER)
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(photos[1], weights_only=True)
    content["fewshot"]["learner"] = "Mine"
    torch.save(content, tmp_path / "mine.ckpt")
    output = tmp_path / "named.csv"
    args = [
        "predict",
        f"--ckpt_path={tmp_path / 'mine.ckpt'}",
        f"--support={photos[0] / 'test'}",
        f"--query={photos[0] / 'test/m'}",
        f"--output={output}",
    ]
    assert "the checkpoint holds a Mine, which is none of the library's" in refusal(capsys, *args)
    assert "--learner MODULE.CLASS" in refusal(capsys, *args)
    assert "own_predictor has no Min; did you mean 'Mine'?" in refusal(
        capsys, *args, "--learner=own_predictor.Min"
    )
    assert "no module 'nowhere'" in refusal(capsys, *args, "--learner=nowhere.Mine")
    assert "is no learner" in refusal(capsys, *args, "--learner=json.JSONDecoder")
    assert not output.exists()
    assert main([*args, "--learner=own_predictor.Mine"]) == 0
    assert {row["class"] for row in rows(output)} == {"m"}
    assert "Mine, 5 classes" in capsys.readouterr().out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command, option in (("predict", "--reject"), ("export", "--format")):
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0
        assert option in capsys.readouterr().out


OWN_BACKBONE = """
from pathlib import Path
from fewshot import Conv4
Path(__file__).with_name("RAN").touch()


class Own(Conv4):
    class Inner(Conv4): ...
"""


@pytest.mark.parametrize("name", ["Own", "Own.Inner"])
def test_a_backbone_of_ones_own_is_imported_by_name(
    photos: Photos,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    module = f"backbone_{name.lower().replace('.', '_')}"
    (tmp_path / f"{module}.py").write_text(OWN_BACKBONE)
    monkeypatch.syspath_prepend(tmp_path)
    content = torch.load(photos[1], weights_only=True)
    content["hyper_parameters"]["backbone"]["class_path"] = f"{module}.{name}"
    torch.save(content, tmp_path / "own.ckpt")
    args = [
        "predict",
        f"--ckpt_path={tmp_path / 'own.ckpt'}",
        f"--support={photos[0] / 'test'}",
        f"--query={photos[0] / 'test/m'}",
        f"--output={tmp_path / 'named.csv'}",
    ]
    message = refusal(capsys, *args)
    assert message.startswith(f"the checkpoint's backbone is {module}.{name}, and a checkpoint")
    assert "command line give --import" in message
    assert not (tmp_path / "RAN").exists(), "the module that a checkpoint names has run"
    assert "importing it fails (ModuleNotFoundError" in refusal(capsys, *args, "--import=nowhere")
    assert main([*args, f"--import={module}"]) == 0
    assert {row["class"] for row in rows(tmp_path / "named.csv")} == {"m"}


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_a_broken_query_costs_its_own_row_alone(
    kind: str,
    photos: Photos,
    texts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    output, query = tmp_path / "named.csv", tmp_path / "query"
    if kind == "images":
        query.mkdir()
        for i in range(70):  # more than are read at once
            shutil.copy(photos[0] / "test/m/0.png", query / f"{i:02d}.png")
        (query / "03.png").write_bytes(b"\x89PNG\r\n")
        (query / "66.png").write_bytes(b"")
        lost, where, checkpoint, support = (
            "03.png cannot be",
            "66.png",
            photos[1],
            photos[0] / "test",
        )
    else:
        query.write_text("\n".join(["a", "?!", "b"] + ["please c"] * 65 + ["..", "now"]))
        lost, where, checkpoint, support = "'?!' has no word", "'..' has no", texts, tmp_path / "s"
        support.mkdir()
        (support / "x.txt").write_text("a\n")
        (support / "y.txt").write_text("b\n")
    args = [f"--ckpt_path={checkpoint}", f"--support={support}", f"--query={query}"]
    capsys.readouterr()
    assert main(["predict", *args, f"--output={output}"]) == 0
    assert len(rows(output)) == 68
    told = capsys.readouterr().err.splitlines()
    assert lost in told[0]
    assert where in told[1]
    assert told[2] == "fewshot: 2 of 70 queries are left out"
    assert len(told) == 3


def test_odd_names_are_written_so_that_no_program_stumbles(
    photos: Photos,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Formulas, and bytes that are no UTF-8, in the names of files and of classes."""
    support = tmp_path / "support"
    for name in (b"=class", b"caf\xe9"):
        (support / os.fsdecode(name)).mkdir(parents=True)
        shutil.copy(photos[0] / "test/m/0.png", support / os.fsdecode(name) / "0.png")
    monkeypatch.chdir(tmp_path)
    query = Path(os.fsdecode(b"-q\xff.png"))
    shutil.copy(photos[0] / "test/m/0.png", query)
    args = [f"--ckpt_path={photos[1]}", "--support=support", f"--query={query}"]
    assert main(["predict", *args, "--output=named.csv"]) == 0
    (row,) = rows(tmp_path / "named.csv")
    assert row["file"] == "'-q\\xff.png"
    assert row["class"] in ("'=class", "caf\\xe9")
    assert {"p(=class)", "p(caf\\xe9)"} <= row.keys()
    assert "-q\\xff.png" in capsys.readouterr().out


def test_rows_alone_go_into_a_pipe(photos: Photos, tmp_path: Path) -> None:
    args = [f"--ckpt_path={photos[1]}", f"--support={photos[0] / 'test'}"]
    command = [python(), "-m", "fewshot", "predict", *args, f"--query={photos[0] / 'test/m'}"]
    done = subprocess.run(
        [*command, "--output=/dev/stdout"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    found = list(csv.reader(done.stdout.splitlines()))
    assert len(found) == 17
    assert {len(row) for row in found} == {8}
    assert "predictions: /dev/stdout" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_several_files_do_not_go_into_a_device(
    photos: Photos, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refusal(
        capsys, "export", f"--ckpt_path={photos[1]}", "--format=pt2", "--output=/dev/null"
    )
    assert message.startswith(
        "output /dev/null is a device or a pipe, and several files are written"
    )


def test_photographs_that_cannot_be_read_are_told(
    photos: Photos,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In training, in the support and among the queries; counted by their endings."""
    monkeypatch.setattr("fewshot.datasets.reading.folders.reads_heic", lambda: False)
    root = fake_image_folder(tmp_path / "photos")
    for folder in ("train/a", "test/m"):
        for name in ("1.HEIC", "2.heic", "3.raw", "README", ".hidden"):
            (root / folder / name).write_bytes(b"?")
    load_image_folder(root, 8)
    told = "files (4 .heic, 2 .raw, 2 no ending), which cannot be read as images here"
    assert [record.getMessage() for record in caplog.records] == [
        f"{root}: passed over 8 {told}; convert them to png or jpg, or pip install 'fewshot-lightning[heic]'"
    ]
    caplog.clear()
    args = [f"--ckpt_path={photos[1]}", f"--support={root / 'test'}", f"--query={root / 'test/m'}"]
    assert main(["predict", *args, f"--output={tmp_path / 'named.csv'}"]) == 0
    assert len(rows(tmp_path / "named.csv")) == 16
    told = "passed over 4 files (2 .heic, 1 .raw, 1 no ending)"
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith(f"{root / 'test'}: {told}")
    assert messages[1].startswith(f"{root / 'test/m'}: {told}")


def test_all_that_is_wrong_with_a_support_is_told_at_once(
    photos: Photos, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = support_of(photos, tmp_path / "support", {"k": 2, "m": 2})
    args = ("predict", f"--ckpt_path={photos[1]}", f"--support={support}", f"--query={support}")
    (support / "k/cut.png").write_bytes((support / "k/0.png").read_bytes()[:60])
    (support / "m/none.jpg").write_bytes(b"")
    error = refusal(capsys, *args)
    assert "k/cut.png cannot be decoded" in error
    assert "m/none.jpg cannot be decoded (it has 0 bytes)" in error
    assert error.endswith("; replace or delete these 2 files")
    for name in ("void", "gap"):
        (support / name).mkdir()
    (support / "gap/IMG.cr2").write_bytes(b"raw")
    assert refusal(capsys, *args) == (
        f"{support / 'gap'}, {support / 'void'} hold no image (png, jpg, webp, tiff, ...) but 1 file"
        " (1 .cr2); fill or remove these classes"
    )
