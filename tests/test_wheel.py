"""The built wheel works where the checkout is not."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    } | variables
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A new virtual environment with the wheel.

    Everything else comes from the environment of the tests.
    """
    source = tmp_path / "source"
    for name in ("fewshot", "configs", "results"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    run(
        sys.executable,
        "-m",
        "build",  # the source distribution, and the wheel out of that
        "--no-isolation",
        "--outdir",
        tmp_path / "dist",
        cwd=source,
    )
    (wheel,) = (tmp_path / "dist").glob("fewshot_lightning-*.whl")
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--no-index",
        "--target",
        packages,
        wheel,
        cwd=tmp_path,
    )
    # behind the new packages on the path, and without what an editable installation adds to it
    (packages / "tests.pth").write_text("\n".join(site.getsitepackages()))
    return environment


def test_the_wheel_trains_outside_of_the_checkout(
    installed: Path, own_data_root: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    command = (
        (
            "import sys, fewshot, fewshot.cli.main; print(fewshot.__file__);"
            " sys.exit(fewshot.cli.main.main(sys.argv[1:]))"
        ),
        "fit",
        "--config=glyphs/protonet_5way1shot",
        "--data.train_episodes=8",
        "--data.val_episodes=2",
        "--data.test_episodes=3",
        "--trainer.max_epochs=1",
        "--trainer.enable_progress_bar=false",
    )
    python = installed / "bin" / "python"
    out = run(
        python, "-c", *command, cwd=folder, FEWSHOT_DATA=str(own_data_root), OMP_NUM_THREADS="1"
    )
    imported = Path(out.splitlines()[0])
    assert imported.is_relative_to(installed)
    assert (imported.parent / "py.typed").is_file()
    result = json.loads(
        (folder / "lightning_logs/prototypicalnetwork-glyphs-5way1shot-0/results.json").read_text()
    )
    assert result["benchmark"] == "Glyphs"
    assert (
        folder / "lightning_logs/prototypicalnetwork-glyphs-5way1shot-0/checkpoints/best.ckpt"
    ).is_file()
    assert [path.name for path in folder.iterdir()] == ["lightning_logs"]
    held = {
        path.relative_to(imported.parent / "configs")
        for path in imported.parent.glob("configs/*/*")
    }
    assert held == {path.relative_to(ROOT / "configs") for path in ROOT.glob("configs/*/*")}
    recorded = {
        path.relative_to(imported.parent / "results")
        for path in imported.parent.glob("results/*/*")
    }
    assert recorded == {path.relative_to(ROOT / "results") for path in ROOT.glob("results/*/*")}
    listing = "import sys, fewshot.cli.main as f; sys.exit(f.main(['list', 'configs']))"
    assert "glyphs/protonet_5way1shot" in run(python, "-c", listing, cwd=folder)
