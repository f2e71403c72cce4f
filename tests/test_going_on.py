"""A run that was killed, stopped or had no room on the disk goes on as if nothing had happened."""

import subprocess
from pathlib import Path

import pytest
import torch
from every_learner import ACTING, TRAINED
from forks import python
from killed import STEPS, rows, train
from once import Once
from torch import Tensor

pytestmark = pytest.mark.filterwarnings(
    "ignore:Checkpoint directory .* exists and is not empty:UserWarning"
)

SCRIPT = Path(__file__).with_name("killed.py")
CHECKPOINT = "rows/version_0/checkpoints/last.ckpt"


@pytest.fixture(scope="session")
def killed(once: Once) -> Path:
    """What every learner's run had written when it was killed."""
    return once("killed", kill_them_all)


def kill_them_all(folder: Path) -> None:
    process = subprocess.run(
        [python(), str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]


@pytest.mark.parametrize("name", [*TRAINED, *ACTING])
def test_a_killed_run_goes_on_to_the_same_bits_and_logs(
    name: str, killed: Path, tmp_path: Path
) -> None:
    root, whole = killed / name, tmp_path / "whole"
    checkpoint = root / CHECKPOINT
    saved = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 3 <= saved < STEPS
    expected = train(name, whole)
    same(train(name, root, resume=checkpoint), expected)
    logged, found = rows(whole), rows(root)
    assert found.items() <= logged.items()
    missing = logged.keys() - found.keys()
    assert all(step == saved - 1 for step, _ in missing), (
        "but for a step whose checkpoint was its last act"
    )


def same(weights: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert weights.keys() == expected.keys()
    for key, value in expected.items():
        # a centre that nobody has needed is NaN
        assert torch.equal(weights[key].nan_to_num(1e9), value.nan_to_num(1e9)), key
