"""What is kept to be found again: listed, bounded, removed; never data, never what is in use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.cli.main import main
from fewshot.datasets.reading.downloads import cached_arrays
from fewshot.engine.feature_bank import FeatureBank
from fewshot.engine.feature_files import FeatureFiles
from fewshot.files import leftovers
from fewshot.files.caches import caches, features_in
from fewshot.files.leftovers import scratch_name
from fewshot.files.places import caches_in_use, use_cache

HOUR = 3600


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with data, and three caches: used an hour, two hours and three hours ago."""
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path))
    (tmp_path / "omniglot/images_background/Greek").mkdir(parents=True)
    (tmp_path / "omniglot/images_background.zip").write_bytes(bytes(5000))
    np.savez(tmp_path / "own.npz", x=np.zeros(1000))  # no checksum beside it: data
    cached_arrays(tmp_path / "glyphs/v1.npz", lambda: {"x": np.zeros(100)})
    bank = FeatureBank(2**20)
    bank.take("kind", [bytes([i] * 16) for i in range(9)], torch.zeros(9, 50))
    FeatureFiles(tmp_path / "features/Net-1").write(bank)
    store = tmp_path / "image_folder/photos-28px"
    store.mkdir(parents=True)
    for name in ("images.u8", "checks.u64", "index.json"):
        (store / name).write_bytes(bytes(1000))
    (store.parent / "photos-28px.lock").touch()
    ages = {"image_folder/photos-28px": 1, "features/Net-1": 2, "glyphs/v1.npz": 3}
    for name, hours in ages.items():
        used = (tmp_path / name).stat().st_mtime - hours * HOUR
        os.utime(tmp_path / name, (used, used))
    return tmp_path


def names(root: Path) -> list[str]:
    return [str(cache.path.relative_to(root)) for cache in caches(root)]


def test_the_list_has_caches_alone_and_what_was_used_last_on_top(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache"]) == 0
    title, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith(f"{root}: 3 caches, ")
    assert [line.split()[0] for line in lines] == names(root)[::-1]
    assert lines[0].split() == [
        *("image_folder/photos-28px", "images", "3.0", "KB", "1", "hour", "ago")
    ]


def test_least_recently_used_go_first(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {name: cache.size for name, cache in zip(names(root), caches(root), strict=True)}
    before = {path for path in root.rglob("*") if path.suffix in (".zip", ".npz")}
    most = sizes["image_folder/photos-28px"] + sizes["features/Net-1"]
    assert main(["cache", "--prune", "--max_size", f"{most}B", "--dry_run"]) == 0
    assert "glyphs/v1.npz" in capsys.readouterr().out
    assert len(names(root)) == 3
    assert main(["cache", "--prune", "--max_size", f"{most}B"]) == 0
    assert names(root) == ["features/Net-1", "image_folder/photos-28px"]
    assert main(["cache", "--prune", "--max_age", "1.5h"]) == 0
    assert names(root) == ["image_folder/photos-28px"]
    assert main(["cache", "--remove", "image_folder/*"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[-2:] == ["removed image_folder/photos-28px (3.0 KB)", f"3.0 KB freed, 0 B left in {root}"]  # fmt: skip
    after = {path for path in root.rglob("*") if path.suffix in (".zip", ".npz")}
    assert before - after == {root / "glyphs/v1.npz"}  # data stay
    assert not list(root.rglob("*.lock"))
    assert not list(root.rglob("*.sha256"))


def test_what_a_running_process_uses_stays(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys; from pathlib import Path; from fewshot.files.places import use_cache;"
        f" use_cache(Path({str(root / 'glyphs/v1.npz')!r})); print('ready', flush=True);"
        " sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert caches_in_use() == {(root / "glyphs/v1.npz").resolve()}
        assert main(["cache", "--prune", "--max_size", "0B"]) == 0
        assert names(root) == ["glyphs/v1.npz"]  # and newest now
        assert main(["cache"]) == 0
        assert capsys.readouterr().out.splitlines()[-1].endswith("in use")
        assert main(["cache", "--remove", "*"]) == 2
        assert "glyphs/v1.npz is in use by a running process" in capsys.readouterr().err
        process.kill()
    assert caches_in_use() == set()  # its note lies there, and is not believed
    assert main(["cache", "--remove", "glyphs/v1.npz"]) == 0
    assert names(root) == []


def test_what_a_killed_removal_leaves_goes_with_the_next(root: Path) -> None:
    left = root / "glyphs" / scratch_name().replace(f"-{os.getpid()}-", "-999999999-gone")
    left.write_bytes(bytes(10))
    leftovers._removed.cache_clear()  # as in another process
    assert main(["cache", "--remove", "glyphs/*"]) == 0
    assert list((root / "glyphs").iterdir()) == []


def test_reading_a_cache_makes_it_the_newest(root: Path) -> None:
    cached_arrays(root / "glyphs/v1.npz", lambda: pytest.fail("it is there"))
    assert names(root)[-1] == "glyphs/v1.npz"
    use_cache(root / "features/Net-1")
    assert names(root)[-1] == "features/Net-1"
    notes = list((root / ".in_use").iterdir())
    assert {json.loads(line) for note in notes for line in note.read_text().splitlines()} == {
        str(root / "glyphs/v1.npz"),
        str(root / "features/Net-1"),
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prune"], "--prune has no bound; add --max_size 5GB or --max_age 30d"),
        (["--max_size", "5GB"], "--max_size is a bound of --prune; add --prune"),
        (["--prune", "--max_size", "5"], "'5' is no number with a unit; give 5GB or 200MB"),
        (["--prune", "--max_age", "2y"], "'2y' is no number with a unit; give 12h, 30d or 8w"),
        (["--remove", "nothing"], "is 'nothing'; `fewshot cache` lists them"),
        (["--remove", "*", "--prune", "--max_age", "1d"], "two ways to choose"),
        (["--dry_run"], "--dry_run is of --prune and --remove"),
        (["--purge"], "unknown option '--purge'"),
    ],
)
def test_wrong_options(
    root: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cache", *options]) == 2
    assert message in capsys.readouterr().err
    assert len(names(root)) == 3


def test_no_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    monkeypatch.setenv("FEWSHOT_DATA", str(tmp_path / "nowhere"))
    assert main(["cache"]) == 0
    assert capsys.readouterr().out == f"{tmp_path}/nowhere: 0 caches, 0 B\n"
    assert features_in(tmp_path / "nowhere") == []
