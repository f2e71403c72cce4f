"""The code of docs/python.md runs as it stands there, on benchmarks of a few episodes."""

import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import fewshot

ROOT = Path(__file__).resolve().parents[1]
TRAIN, USE, ACT = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)
FEW: dict[str, Any] = {
    "train_episodes": 4,
    "meta_batch_size": 2,
    "val_episodes": 2,
    "test_episodes": 3,
}


@pytest.fixture
def few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, where Glyphs has few episodes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fewshot, "GlyphsDataModule", partial(fewshot.GlyphsDataModule, **FEW))
    return tmp_path


def ran(code: str, **names: Any) -> dict[str, Any]:
    """The names that code leaves."""
    exec(compile(code, "docs/python.md", "exec"), names)
    return names


def test_the_readme_has_the_same_example() -> None:
    assert f"```python\n{TRAIN}```" in (ROOT / "README.md").read_text()


def test_a_learner_is_trained_and_used(few: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = ran(TRAIN)
    assert re.search("│ accuracy +│", capsys.readouterr().out)
    shutil.copy(trained["best"], "best.ckpt")
    rng = np.random.default_rng(0)
    for folder in ("support/one", "support/two", "queries"):
        Path(folder).mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (30, 30), np.uint8)).save(f"{folder}/a.png")
    predictor = ran(USE)["predictor"]
    (name,) = predictor("queries").names
    assert capsys.readouterr().out.splitlines()[-1] == f"['{name}']"


def test_a_policy_adapts_to_an_environment(few: Path) -> None:
    pytest.importorskip("gymnasium")
    data = fewshot.GymnasiumDataModule("CartPole-v1", {}, horizon=5, shot=2, **FEW)
    trainer = fewshot.Trainer(max_epochs=1, logger=False, enable_progress_bar=False)
    trainer.fit(fewshot.MAML(fewshot.MLP(4, (5,)), task=data.task, inner_lr=1.0), data)
    trainer.save_checkpoint("best.ckpt")
    assert ran(ACT, fewshot=fewshot, observation=torch.zeros(4))["action"] in (0, 1)
