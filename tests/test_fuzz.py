"""Malformed configs, data, checkpoints and supports: one line or a right result; none hangs."""

import csv
import functools
import io
import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import FEW, QUIET
from fakes import fake_clinc150
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from wrong_files import places

import fewshot
from fewshot import FewshotError, ImageFolderDataModule
from fewshot.cli.main import main
from fewshot.datasets.clinc150 import load_clinc150
from fewshot.datasets.reading.decoding import read_image
from fewshot.datasets.reading.folders import is_image
from fewshot.datasets.reading.words import tokenize
from fewshot.deployment.load import load
from fewshot.deployment.predictor import TrainedLearner
from fewshot.files.tables import safe_cell

PATIENCE = 60  # seconds after which an example counts as hanging


def fuzz(examples: int) -> Callable[..., Any]:
    """So many examples, the same ones every time."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        # shrinking takes minutes; the example itself says enough
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=[
            HealthCheck.function_scoped_fixture,
            HealthCheck.too_slow,
            HealthCheck.data_too_large,
        ],
    )


@contextmanager
def no_hang() -> Iterator[None]:
    """Inside, what takes longer than a minute is an error."""

    def stop(*args: object) -> None:
        raise AssertionError(f"it hangs: more than {PATIENCE} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(PATIENCE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one example."""
    with tempfile.TemporaryDirectory() as folder, no_hang():
        yield Path(folder)


def run(*args: str) -> str | None:
    """Run a command line; its one-line error, or None where it succeeds."""
    error = io.StringIO()
    with redirect_stderr(error), redirect_stdout(io.StringIO()):
        code = main(list(args))
    lines = [line for line in error.getvalue().splitlines() if line.startswith("fewshot: error: ")]
    assert "Traceback" not in error.getvalue()
    assert code == (2 if lines else 0)
    assert len(lines) <= 1
    assert all(len(line) < 1500 for line in lines), lines
    return lines[0] if lines else None


def one_line(work: Callable[[], Any]) -> Any:
    """What `work` gives; None where it refuses, which it must do in one line."""
    try:
        return work()
    except FewshotError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 1500, said
    return None


# ---------------------------------------------------------------------- files of all kinds


def encoded(form: str, mode: str, size: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    shape = (size[1], size[0], *((len(mode),) if mode in ("RGB", "RGBA", "CMYK", "LA") else ()))
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    image = (
        Image.new("I;16", size, 1000) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    )
    image.save(buffer, form)
    return buffer.getvalue()


GOOD = [
    *(encoded("png", mode, (9, 7)) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    *(encoded("jpeg", mode, (12, 5)) for mode in ("RGB", "L", "CMYK")),
    encoded("gif", "P", (3, 3)),
    encoded("bmp", "RGB", (1, 1)),
    encoded("tiff", "RGB", (300, 1)),
    encoded("webp", "RGB", (8, 8)),
]
CONTENTS = st.one_of(
    st.sampled_from(GOOD),
    st.sampled_from(GOOD),
    st.builds(
        lambda data, end: data[: end % len(data)], st.sampled_from(GOOD), st.integers(0, 10_000)
    ),
    st.builds(
        lambda data, at, bit: (
            data[: at % len(data)]
            + bytes([data[at % len(data)] ^ bit])
            + data[at % len(data) + 1 :]
        ),
        st.sampled_from(GOOD),
        st.integers(0, 10_000),
        st.integers(1, 255),
    ),
    st.binary(max_size=50),
    st.sampled_from(
        [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n", b"GIF89a" + b"\xff" * 20]
    ),
)
NAMES = st.sampled_from(
    ["a", "b", "c", "train", "val", "test", ".hidden", "ünïcode", "with space", "[bold]x", "=1+1"]
)
FILES = st.sampled_from(
    ["0.png", "1.PNG", "2.jpg", "3.gif", ".4.png", "notes.txt", "5.webp", "sub/6.png", "7.tiff"]
)
TREE = st.dictionaries(NAMES, st.dictionaries(FILES, CONTENTS, max_size=4), max_size=4)
ODD = st.sampled_from(
    ["nothing", "nothing", "nothing", "loop", "dangling", "folder.png", "file as class"]
)


def plant(root: Path, tree: dict[str, dict[str, bytes]], odd: str = "nothing") -> Path:
    """Write a tree of class folders, with something odd in the first."""
    root.mkdir()
    for name, files in tree.items():
        (root / name).mkdir()
        for file, content in files.items():
            (root / name / file).parent.mkdir(exist_ok=True)
            (root / name / file).write_bytes(content)
    if tree and (first := root / next(iter(tree))):
        if odd == "loop":
            (first / "again").symlink_to(root)
        elif odd == "dangling":
            (first / "9.png").symlink_to(root / "nowhere")
        elif odd == "folder.png":
            (first / "8.png").mkdir()
        elif odd == "file as class":
            (root / "class").write_text("no folder")
    return root


def decodes(path: Path) -> bool:
    return one_line(lambda: read_image(path, 8, 3)) is not None


# ---------------------------------------------------------------------- datasets


@fuzz(80)
@given(tree=TREE, odd=ODD, channels=st.sampled_from([1, 3]), size=st.integers(1, 20))
def test_image_folders(
    tree: dict[str, dict[str, bytes]], odd: str, channels: Any, size: int
) -> None:
    with scratch() as folder:
        root = plant(folder / "root", tree, odd)

        def read() -> ImageFolderDataModule:
            data = ImageFolderDataModule(str(root), size, channels, way=2, test_episodes=2)
            _ = data.datasets
            return data

        if (data := one_line(read)) is None:
            return
        found = data.datasets
        episode = next(iter(data.test_dataloader())).stacked
        assert isinstance(episode.query.inputs, Tensor)
        assert episode.query.inputs.shape[2:] == (channels, size, size)
        rows = sum(len(split.inputs) for split in found.values())
        assert rows == sum(int(split.counts.sum()) for split in found.values()) > 0


JUNK: st.SearchStrategy[Any] = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 10**4), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


@fuzz(60)
@given(data=st.data())
def test_clinc150_files(data: st.DataObject, clinc: dict[str, str]) -> None:
    texts = dict(clinc)
    name = data.draw(st.sampled_from(sorted(texts)))
    kind = data.draw(st.sampled_from(["cut", "junk", "value", "entry"]))
    content = json.loads(texts[name])
    if kind == "cut":
        texts[name] = texts[name][: data.draw(st.integers(0, len(texts[name]) - 1))]
    elif kind == "junk":
        texts[name] = json.dumps(data.draw(JUNK))
    else:
        key = data.draw(st.sampled_from(sorted(content)))
        if kind == "value" or not content[key]:
            content[key] = data.draw(JUNK)
        else:
            content[key][data.draw(st.integers(0, len(content[key]) - 1))] = data.draw(JUNK)
        texts[name] = json.dumps(content)
    with scratch() as folder:
        for file, text in texts.items():
            (folder / file).write_text(text)
        found = one_line(lambda: load_clinc150(folder, "domain"))
        assert found is None or sum(len(part.classes) for part in found.datasets.values()) == 150


@pytest.fixture(scope="module")
def clinc(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """CLINC150's files, small."""
    root = fake_clinc150(tmp_path_factory.mktemp("clinc"))
    return {path.name: path.read_text() for path in root.iterdir()}


# ---------------------------------------------------------------------- supports and queries


@functools.cache
def loaded(path: str) -> TrainedLearner:
    return load(path, "cpu")


def predicted(
    checkpoint: Path, support: Path, query: Path, output: Path
) -> list[dict[str, str]] | None:
    """What `fewshot predict` writes; None where it refuses, after which nothing must be left."""
    # the checkpoint is the same for all examples: it is loaded once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fewshot, "load", lambda path, device, own: loaded(path))
        args = (
            f"--ckpt_path={checkpoint}",
            f"--support={support}",
            f"--query={query}",
            f"--output={output}",
        )
        said = run("predict", *args)
    if said is not None:
        assert list(output.parent.iterdir()) == []
        return None
    assert list(output.parent.iterdir()) == [output]
    with output.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        every = {name: float(value) for name, value in row.items() if name.startswith("p(")}
        assert sum(every.values()) == pytest.approx(1, abs=1e-4)
        assert float(row["probability"]) == max(every.values())
        assert every[f"p({row['class']})"] == pytest.approx(max(every.values()), abs=1e-6)
    return rows


@fuzz(100)
@given(support=TREE, query=st.dictionaries(FILES, CONTENTS, max_size=4), odd=ODD)
def test_image_supports(
    support: dict[str, dict[str, bytes]],
    query: dict[str, bytes],
    odd: str,
    photos: tuple[Path, Path],
) -> None:
    with scratch() as folder:
        (folder / "out").mkdir()
        places = (
            plant(folder / "support", support, odd),
            plant(folder / "all", {"query": query}) / "query",
        )
        rows = predicted(photos[1], *places, folder / "out/predictions.csv")
        visible = [path for path in places[1].rglob("*") if is_image(path.name)]
        if rows is not None:
            named = [path for path in visible if decodes(path)]
            assert sorted(row["file"] for row in rows) == sorted(map(str, named))


LINES = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.sampled_from(
        [
            b"please a\nintent_1 now\n",
            b"please b\r\n\r\nc",
            b"",
            b"\n \n",
            b"\xff\xfeh\x00i\x00",
            b"?!\n",
        ]
    ),
    st.binary(max_size=20),
)
TEXT_FILES = st.sampled_from(["0.txt", "1.txt", ".2.txt", "notes.md"])


@fuzz(60)
@given(
    support=st.dictionaries(NAMES, st.dictionaries(TEXT_FILES, LINES, max_size=2), max_size=3),
    flat=st.dictionaries(st.sampled_from(["a.txt", "d.txt", "e"]), LINES, max_size=2),
    query=LINES,
)
def test_text_supports(
    support: dict[str, dict[str, bytes]], flat: dict[str, bytes], query: bytes, texts: Path
) -> None:
    with scratch() as folder:
        (folder / "out").mkdir()
        root = plant(folder / "support", support)
        for name, content in flat.items():
            (root / name).write_bytes(content)
        (folder / "query.txt").write_bytes(query)
        rows = predicted(texts, root, folder / "query.txt", folder / "out/predictions.csv")
        if rows is not None:
            lines = query.decode("utf-8-sig").splitlines()
            named = [safe_cell(line.strip()) for line in lines if tokenize(line)]
            assert [row["text"] for row in rows] == named


# ---------------------------------------------------------------------- checkpoints and configs


@fuzz(30)
@given(data=st.data())
def test_checkpoints(data: st.DataObject, photos: tuple[Path, Path]) -> None:
    whole = photos[1].read_bytes()
    kind = data.draw(st.sampled_from(["cut", "bytes", "plain value", "entry"]))
    with scratch() as folder:
        path = folder / "one.ckpt"
        if kind == "cut":
            path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        elif kind == "bytes":
            path.write_bytes(data.draw(st.binary(max_size=100)))
        elif kind == "plain value":
            torch.save(data.draw(JUNK), path)
        else:
            content = torch.load(io.BytesIO(whole), weights_only=True)
            part = data.draw(st.sampled_from(["", "fewshot", "hyper_parameters"]))
            inner = content[part] if part else content
            inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JUNK)
            torch.save(content, path)
        found = one_line(lambda: fewshot.load(path))
        assert found is None or isinstance(found, TrainedLearner)


CONFIG = {
    "model": {
        "class_path": "MAML",
        "init_args": {
            "inner_lr": 0.01,
            "inner_steps": 1,
            "backbone": {"class_path": "MLP", "init_args": {"hidden": [4]}},
            "optimizer": {"class_path": "Adam", "init_args": {"lr": 0.001}},
        },
    },
    "data": {
        "class_path": "SinusoidDataModule",
        "init_args": {"shot": 2, "queries": 3, "meta_batch_size": 2},
    },
    "trainer": {"max_steps": 1, "max_epochs": 1},
    "seed_everything": 0,
    "test_after_fit": False,
}


@fuzz(12)
@given(data=st.data())
def test_configs(data: st.DataObject) -> None:
    config = json.loads(json.dumps(CONFIG))
    place = data.draw(st.sampled_from(list(places(CONFIG))))
    owner = config
    for key in place[:-1]:
        owner = owner[key]
    kind = data.draw(st.sampled_from(["value", "missing", "unknown", "cut", "bytes"]))
    if kind == "value":
        owner[place[-1]] = data.draw(JUNK)
    elif kind == "missing":
        del owner[place[-1]]
    elif kind == "unknown":
        owner[data.draw(st.text(min_size=1, max_size=5))] = data.draw(JUNK)
    text = yaml.safe_dump(config).encode()
    if kind == "cut":
        text = text[: data.draw(st.integers(0, len(text) - 1))]
    elif kind == "bytes":
        text = data.draw(st.binary(max_size=60))
    with scratch() as folder:
        (folder / "config.yaml").write_bytes(text)
        root = f"--trainer.default_root_dir={folder / 'runs'}"
        before = os.getcwd()
        said = run(
            "fit",
            "--trainer.max_epochs=1",  # where the config has lost it
            f"--config={folder / 'config.yaml'}",
            *FEW,
            *QUIET,
            "--trainer.logger=false",
            root,
        )
        assert os.getcwd() == before
        checkpoints = list(folder.rglob("*.ckpt"))
        assert said is not None or checkpoints
        for path in checkpoints:
            assert "state_dict" in torch.load(path, weights_only=True)
