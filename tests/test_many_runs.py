"""Runs that start, are killed and go on at the same time in one folder do not know of each other."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import results
from forks import python
from many_runs import STEPS, seed_of

SCRIPT = Path(__file__).with_name("many_runs.py")


def content(run: Path) -> dict[str, Any]:
    held = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert isinstance(held, dict)
    assert held["global_step"] == STEPS
    return held


def same(one: Any, other: Any) -> bool:
    """Whether two states are equal bit by bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("number", [2, pytest.param(8, marks=pytest.mark.slow)])
def test_killed_runs_go_on_to_the_bits_of_their_twins(number: int, tmp_path: Path) -> None:
    process = subprocess.run(
        [python(), str(SCRIPT), str(tmp_path), str(number)],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    runs = sorted(path for path in (tmp_path / "killed/lightning_logs").iterdir())
    assert [run.name for run in runs] == [f"maml-sinusoid-10shot-{i}" for i in range(number)]
    assert sorted(map(seed_of, runs)) == list(range(number))
    found = []
    for run in runs:
        (twin,) = (tmp_path / f"whole{seed_of(run)}/lightning_logs").iterdir()
        one, other = content(run), content(twin)
        for part in ("state_dict", "optimizer_states"):
            assert same(one[part], other[part]), (run.name, part)
        assert results(run)["metrics"] == results(twin)["metrics"]
        assert (run / "config-1.yaml").is_file()
        found.append(one["state_dict"])
    assert not any(same(found[0], other) for other in found[1:]), "each has weights of its own"
