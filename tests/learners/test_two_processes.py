"""Every learner trains the same weights by two `torchrun` nodes (DDP, gloo) as by one process."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from every_learner import ACTING, NAMES, TRAINED
from forks import python
from once import Once
from ranks import STEPS, Precision, train

SCRIPT = Path(__file__).resolve().parents[1] / "ranks.py"
TOLERANCE = {"64-true": 1e-10, "32-true": 1e-5}
ONE_OF_EACH_FAMILY = {"Baseline", "CNP", "MAML", "PrototypicalNetwork"}
"""Trained in float32 too.

All the others only by `make slow`: no other code runs, and it takes a minute.
"""
ALONE = {"PsCo"}
"""Trained by one process only, which they say: see test_psco.py."""
TOGETHER = [name for name in TRAINED if name not in ALONE]
PASSES = {"MAMLByProMP": 2}
"""Optimizer steps of a meta-step, where it has several."""
CASES: list[Any] = [(name, "64-true") for name in (*TOGETHER, *ACTING)]
CASES += [
    pytest.param(name, "32-true", marks=() if name in ONE_OF_EACH_FAMILY else pytest.mark.slow)
    for name in TOGETHER
]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def folder(once: Once, request: pytest.FixtureRequest) -> Path:
    """What the ranks have left: one pair of processes trains all learners that are to be tested."""
    items: list[Any] = [item for item in request.session.items if item.path == Path(__file__)]
    cases = (item.callspec.params for item in items)
    runs = dict.fromkeys(f"{case['name']}-{case.get('precision', '64-true')}" for case in cases)
    return once("ranks", lambda folder: train_on_two(folder, list(runs)))


def train_on_two(folder: Path, runs: list[str]) -> None:
    """Have two processes train learners. They need minutes, on a slow machine many."""
    torchrun = [python(), "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"]
    torchrun += ["--master-addr=127.0.0.1", f"--master-port={free_port()}"]
    nodes = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={rank}", str(SCRIPT), str(folder), *runs],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [node.communicate(timeout=1200)[0] for node in nodes]
    finally:
        for node in nodes:
            node.terminate()  # torchrun takes its process with it
    assert [node.returncode for node in nodes] == [0, 0], "".join(outputs)[-3000:]


def of_rank(folder: Path, name: str, precision: Precision, rank: int) -> dict[str, Any]:
    found = torch.load(folder / f"{name}-{precision}-{rank}.pt", weights_only=True)
    assert isinstance(found, dict), found  # else a traceback
    assert found["world_size"] == 2
    return found


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_two_processes_train_the_same_weights_as_one(
    name: str, precision: Precision, folder: Path, tmp_path: Path
) -> None:
    one = train(name, precision, tmp_path)
    assert one["steps"] == STEPS
    scale = max(weight.abs().max() for weight in one["weights"].values())
    for rank in range(2):
        other = of_rank(folder, name, precision, rank)
        assert other["buckets"] == [0] * STEPS * PASSES.get(name, 1), "one all-reduce a step"
        for key, weight in one["weights"].items():
            assert (other["weights"][key] - weight).abs().max() <= TOLERANCE[precision] * scale, key
        if (temperature := one["temperature"]) is not None:  # regression has no probabilities
            assert other["temperature"] == pytest.approx(temperature, rel=0.06)  # a step
        for stage, episodes in (("val", 5), ("test", 7)):
            same_evaluation(one, other, stage, episodes, 1e-6 if precision == "64-true" else 1e-3)


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(TRAINED)))
def test_two_processes_test_as_one(name: str, folder: Path, tmp_path: Path) -> None:
    one = train(name, "64-true", tmp_path)
    for rank in range(2):
        same_evaluation(one, of_rank(folder, name, "64-true", rank), "test", 7, 1e-6)


def same_evaluation(
    one: dict[str, Any], other: dict[str, Any], stage: str, episodes: int, tolerance: float
) -> None:
    """Each episode counted once, a number that two do not divide.

    The same rows, means and intervals.
    """
    assert (
        other[stage]["episode"].tolist() == one[stage]["episode"].tolist() == list(range(episodes))
    )
    assert len(set(one[stage]["loss"].tolist())) > 1, "other episodes, other losses"
    assert list(other[stage]) == list(one[stage])
    for key, column in one[stage].items():  # the tables hold float32
        torch.testing.assert_close(
            other[stage][key], column, rtol=tolerance, atol=tolerance, msg=key
        )
    if stage == "test" and "answers" in one:  # each query once, with what was answered
        right = [label == answer for _, label, answer in one["answers"]]
        accuracy = float(one[stage]["accuracy"].mean())
        assert sum(right) / len(right) == pytest.approx(accuracy, abs=1e-6)
        assert other["answers"] == one["answers"] or tolerance > 1e-6
    logs, others = (
        {k: v for k, v in held[f"{stage}_logs"].items() if k.startswith(stage)}
        for held in (one, other)
    )
    assert {f"{stage}/loss", f"{stage}/loss_ci95"} <= logs.keys()
    assert len(logs) % 2 == 0, "a mean and an interval each"
    assert logs.keys() == others.keys()
    for key, value in logs.items():
        # the interval of a class that few episodes are about is unknown
        torch.testing.assert_close(
            others[key], value, rtol=tolerance, atol=tolerance, equal_nan=True, msg=key
        )
