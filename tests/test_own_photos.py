"""Folders of one's own: the README's command at the first try, 100 odd folders, `fewshot check`."""

import csv
import io
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from commands import FEW, QUIET, fit, results
from own_data import what_works
from PIL import Image

from fewshot import FewshotError, ImageFolderDataModule
from fewshot.cli.main import main
from fewshot.datasets.cifar100 import load_cifar100

README = (Path(__file__).parents[1] / "README.md").read_text()
SMALL = ("--data.image_size=32", "--model.backbone.width=4", "--trainer.max_epochs=1")


def photograph(rng: np.random.Generator, base: Any, size: int, kind: str) -> bytes:
    """An image of a class: its colours and noise."""
    pixels = np.clip(base + rng.integers(-30, 30, base.shape), 0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).resize((size, size)).save(content, kind)
    return content.getvalue()


def of_cifar100(root: Path, shared_data: Path) -> None:
    """Twelve folders of ten photos of CIFAR-100, in two sizes, JPEG and PNG."""
    source = load_cifar100(shared_data / "cifar100", "cifar_fs", verify=False)["test"]
    assert isinstance(source.inputs, torch.Tensor)
    for name, start in list(zip(source.classes, source.starts.tolist(), strict=True))[:12]:
        (root / name).mkdir(parents=True)
        for i, pixels in enumerate(source.inputs[start : start + 10]):
            photo = Image.fromarray(pixels.permute(1, 2, 0).numpy())
            side, ending = (32, 48)[i // 5], ("jpg", "png")[i % 2]
            photo.resize((side, side)).save(root / name / f"{i}.{ending}")


def readme_at_the_first_try(root: Path, capsys: pytest.CaptureFixture[str], *more: str) -> Path:
    """What the README says of photos, done in the working folder; gives the run's folder."""
    assert main(["check", "photos"]) == 0
    told = capsys.readouterr().out
    assert "12 classes of 10 images: 6 train, 3 validate, 3 test; 3-way 5-shot, 5 queries" in told
    line = next(
        line for line in README.splitlines() if line.startswith("fewshot fit --config imag")
    )
    words = shlex.split(line, comments=True)
    assert told.splitlines()[-1].split() == words  # it tells the README's command
    run = fit(root, *words[2:], *more)
    found = results(run)
    assert (found["way"], found["shot"], found["queries"]) == (3, 5, 5)
    assert set(found["by_class"]) == set(found["classes"]["test"])
    line = next(
        line for line in README.splitlines() if line.startswith("fewshot predict --ckpt_path RUN")
    )
    query = sorted(Path("photos").iterdir())[0]
    words = shlex.split(line.replace("RUN", str(run)).replace("new_photos", str(query)))
    assert main(words[1:]) == 0
    rows = list(csv.DictReader(Path("predictions.csv").read_text().splitlines()))
    assert len(rows) == 10
    assert list(rows[0])[3:] == [f"p({path.name})" for path in sorted(Path("photos").iterdir())]
    return run


def test_real_photos_at_the_first_try(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    of_cifar100(Path("photos"), shared_data)
    readme_at_the_first_try(tmp_path, capsys, *SMALL)


@pytest.mark.slow
def test_real_photos_by_the_whole_command(
    shared_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing added but the folder of the run: all epochs, all episodes."""
    monkeypatch.chdir(tmp_path)
    of_cifar100(Path("photos"), shared_data)
    line = next(
        line for line in README.splitlines() if line.startswith("fewshot fit --config imag")
    )
    assert main(shlex.split(line, comments=True)[1:]) == 0
    found = results(next(Path("lightning_logs").iterdir()))
    assert found["episodes"] == 600
    assert found["metrics"]["accuracy"]["mean"] > 0.4


# ---------------------------------------------------------------------- folders at random


def random_folder(root: Path, seed: int) -> Path:
    """2 to 60 classes of 1 to 40 files, one of ten of them odd; broken in every other folder."""
    rng = np.random.default_rng(seed)
    kinds = ("JPEG", "PNG", "BMP")
    for number in range(int(rng.integers(2, 61))):
        folder, base = root / f"class {number}", rng.integers(0, 256, (4, 4, 3))
        folder.mkdir(parents=True)
        few = [photograph(rng, base, int(rng.integers(6, 20)), kind) for kind in kinds]
        for i in range(int(rng.integers(1, 41))):
            kind = int(rng.integers(3))
            name, content = f"{i}.{kinds[kind].lower()}", few[kind]
            if rng.random() < 0.1:
                odd = int(rng.integers(3 * (seed % 2), 6))
                name = (name, name, name, f"{i}.txt", f".{i}.png", f"{i}.cr2")[odd]
                content = (b"", b"no image", content[: len(content) // 2], b"x", b"x", b"x")[odd]
            (folder / name).write_bytes(content)
    return root


def add_images(root: Path) -> None:
    """What the message asks for where no option helps."""
    rng = np.random.default_rng(0)
    for folder in root.iterdir():
        for i in range(6):
            content = photograph(rng, rng.integers(0, 256, (4, 4, 3)), 8, "PNG")
            (folder / f"more{i}.png").write_bytes(content)


def set_up(root: Path, *options: str) -> None:
    """Read the folder and draw an episode of each stage."""
    pairs = (option.removeprefix("--data.").split("=") for option in options)
    arguments = {name: yaml.safe_load(value) for name, value in pairs}
    data = ImageFolderDataModule(str(root), 8, **arguments)
    for stage in ("train", "val", "test"):
        episode = data.stream(stage)[0]
        assert len(episode.query.targets) == data.way * data.queries


@pytest.mark.parametrize("seed", range(8))
def test_a_random_folder_serves_or_says_what_works(seed: int, tmp_path: Path) -> None:
    root = random_folder(tmp_path / "photos", seed)
    try:
        set_up(root)
    except FewshotError as error:
        options = what_works(str(error), "images")
        if options is None:
            add_images(root)
            options = ["--data.skip_broken=true"]
        set_up(root, *options)


LEARNER = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--model.backbone.width=4")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100))
def test_a_random_folder_trains_or_says_what_works(
    seed: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = random_folder(tmp_path / "photos", seed)
    data = ("--data=ImageFolderDataModule", f"--data.root={root}", "--data.image_size=16")
    args = [*data, *LEARNER, *FEW, *QUIET, "--trainer.max_epochs=1"]
    where = f"--trainer.default_root_dir={tmp_path}"
    if main(["fit", *args, where]) == 0:
        return
    lines = capsys.readouterr().err.splitlines()
    (line,) = (line for line in lines if line.startswith("fewshot: error: "))
    options = what_works(line, "images")
    if options is None:
        add_images(root)
        options = ["--data.skip_broken=true"]
    assert main(["fit", *args, where, *options]) == 0


# ---------------------------------------------------------------------- fewshot check


def test_check_says_what_is_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, root = np.random.default_rng(0), tmp_path / "my photos"
    for number in range(8):
        (root / f"c{number}").mkdir(parents=True)
        for i in range(4):
            content = photograph(rng, rng.integers(0, 256, (4, 4, 3)), 10 + i, "PNG")
            (root / f"c{number}/{i}.png").write_bytes(content)
    (root / "c1/same.png").write_bytes((root / "c0/0.png").read_bytes())
    (root / "c1/twice.png").write_bytes((root / "c1/1.png").read_bytes())  # in one class alone
    Image.new("L", (7, 5)).save(root / "c2/grey.jpg")
    (root / "c3/bad.jpg").write_bytes(b"no image")
    (root / "c3/none.jpg").write_bytes(b"")
    (root / "c3/notes.txt").write_text("x")
    (root / "c9").mkdir()
    assert main(["check", str(root)]) == 0
    told = capsys.readouterr().out
    for part in (
        f"{root}: 9 classes, 35 images",
        "fewest: c9 (0), c0 (4)",
        "most: c1 (6), c2 (5)",
        "13 x 13 (8)",
        "7 x 5 (1)",
        "RGB (34), L (1)",
        "PNG (34), JPEG (1)",
        "passed over 1 file (1 .txt)",
        "2 cannot be read: ",
        "bad.jpg, which is no image that can be read",
        "none.jpg, which has 0 bytes",
        "in several classes: 1 image: c0/0.png = c1/same.png",
        "no image is in 'c9'",
        "8 classes of 4 to 6 images: 4 train, 2 validate, 2 test; 2-way 2-shot, 2 queries a class",
    ):
        assert part in told, part
    command = told.splitlines()[-1]
    assert command.strip() == (
        f"fewshot fit --config image_folder/protonet --data.root '{root}'"
        " --data.skip_broken=true --data.min_examples=2"
    )
    fit(tmp_path, *shlex.split(command)[2:], *SMALL)


def test_check_refuses_what_nothing_helps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2
    assert "no folder that can be read" in capsys.readouterr().err
    (tmp_path / "photos/one").mkdir(parents=True)
    Image.new("L", (7, 5)).save(tmp_path / "photos/one/0.jpg")
    assert main(["check", str(tmp_path / "photos")]) == 2
    captured = capsys.readouterr()
    assert "1 class, 1 image" in captured.out
    assert "to train add images, until 6 classes have 2" in captured.err


def black(root: Path, classes: str, heights: Iterable[int], ending: str) -> Path:
    """Black photos of these heights in each class."""
    for name in classes:
        (root / name).mkdir(parents=True)
        for i, height in enumerate(heights):
            Image.new("L", (7, height)).save(root / name / f"{i}.{ending}")
    return root


def test_check_of_few_photos_says_how_they_name_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Five photos of each of three classes train nothing, and are what README begins with."""
    root = black(tmp_path / "my photos", "abc", range(5, 10), "JPG")
    assert main(["check", str(root)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "(shot 1 + queries 1), fewer are in 'a' (5), 'b' (5), 'c' (5)" in told[-4]
    assert "to train add images, until 6 classes" in told[-3]
    assert told[-2:] == [
        "run:",
        f"  fewshot predict --backbone efficientnet_lite0 --support '{root}' --query NEW",
    ]


def test_check_tells_what_cannot_be_decoded_by_its_mode_and_no_endless_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = black(tmp_path / "photos", "abcdef", (5, 5), "png")
    Image.new("F", (7, 5)).save(root / "a/floats.tiff")
    assert main(["check", str(root)]) == 0
    told = capsys.readouterr().out
    assert "floats.tiff, which cannot be decoded (floating point pixels" in told
    alike = " = ".join(["a/0.png", "a/1.png", "b/0.png", "b/1.png", "c/0.png", "7 more"])
    assert f"in several classes: 1 image: {alike}" in told
    assert told.rstrip().endswith("--data.skip_broken=true")


def test_a_photo_of_a_hundred_megapixels_is_read_in_silence(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.new("1", (10_000, 10_000)).save(tmp_path / name / "0.png")
    # no fork, whose tests have filters of their own
    words = [sys.executable, "-m", "fewshot", "check", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert not done.stderr
    assert "10000 x 10000 (2)" in done.stdout
