"""`fewshot prepare`: packs, checks, mends; takes an experiment's config.

Says what is wrong in a line.
"""

from pathlib import Path

import pytest
from fakes import fake_image_folder, fake_mini_imagenet

from fewshot.cli.main import main
from fewshot.datasets.reading import store

CONFIG = Path(__file__).resolve().parents[1] / "configs/mini_imagenet/protonet_5way1shot.yaml"
SMALL = ("--data.verify=false", "--data.image_size=6", "--data.queries=2", "--data.train_way=5")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "cache"))
    return fake_mini_imagenet(tmp_path / "root", "cache_pkl", images=3)


@pytest.mark.parametrize("by", ["--config", "--data"])
def test_it_packs_the_benchmark_and_says_what_it_holds(
    root: Path,
    tmp_path: Path,
    by: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    what = ["--config", str(CONFIG)] if by == "--config" else ["--data", "MiniImageNetDataModule"]
    assert main(["prepare", *what, f"--data.root={root}", *SMALL]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "mini-ImageNet is prepared.",
        "train: 64 classes, 192 examples",
        "val: 16 classes, 48 examples",
        "test: 20 classes, 60 examples",
    ]
    index = store.read_index(tmp_path / "cache/mini_imagenet/cache_pkl-6px")
    assert index is not None
    assert index["complete"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "root"]


def test_it_mends_what_is_corrupt(root: Path, tmp_path: Path) -> None:
    command = ["prepare", "--data", "MiniImageNetDataModule", f"--data.root={root}", *SMALL]
    assert main(command) == 0
    images = tmp_path / "cache/mini_imagenet/cache_pkl-6px" / store.IMAGES
    whole = images.read_bytes()
    images.write_bytes(whole[:500] + b"\xff" + whole[501:])
    assert main(command) == 0
    assert images.read_bytes() == whole


def test_a_benchmark_without_a_store_is_prepared_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fake_image_folder(tmp_path / "root", images=4)
    options = [
        "--data",
        "ImageFolderDataModule",
        f"--data.root={root}",
        "--data.image_size=8",
        "--data.queries=2",
    ]
    assert main(["prepare", *options]) == 0
    assert "ImageFolder is prepared.\ntrain: 5 classes, 20 examples" in capsys.readouterr().out
    assert main(["prepare", "--data", "SinusoidDataModule"]) == 0
    assert capsys.readouterr().out == "Sinusoid is prepared.\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--data is missing"),
        (
            ["--data", "MiniImageNetDataModul"],
            "'MiniImageNetDataModul' is no known class; did you mean",
        ),
        (
            ["--data", "MiniImageNetDataModule", "--data.rot=x"],
            "has no argument 'rot'; did you mean 'root'",
        ),
        (
            ["--data", "MiniImageNetDataModule", "--data.root=/nowhere"],
            "/nowhere does not hold mini-ImageNet",
        ),
    ],
)
def test_errors_are_one_line(
    root: Path, args: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
