"""Runs of the command line that are stopped, by signals, a full disk or SLURM, and go on.

And its own launcher.
"""

import os
import signal
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import SINUSOID, fit, results
from forks import python
from torch import Tensor

from fewshot.cli.main import main

pytestmark = pytest.mark.usefixtures("undrawn")

HERE = Path(__file__).resolve().parent
CONFIGS = HERE.parent / "configs"
RUN = (
    *SINUSOID,
    *(
        "--data.train_episodes=24",
        "--data.val_episodes=3",
        "--data.test_episodes=5",
        "--data.eval_batch_size=1",
    ),
    *("--trainer.max_steps=10", "--trainer.precision=64-true", "--trainer.log_every_n_steps=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
)
"""Ten meta-steps of four tasks; an epoch has six."""


def weights(root: Path) -> dict[str, Tensor]:
    (checkpoint,) = root.glob("lightning_logs/*/checkpoints/last.ckpt")
    content = torch.load(checkpoint, weights_only=True)
    assert content["global_step"] == 10
    state = content["state_dict"]
    assert isinstance(state, dict)
    return state


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a run that nothing disturbs."""
    root = tmp_path_factory.mktemp("whole")
    assert main(["fit", *RUN, f"--trainer.default_root_dir={root}"]) == 0
    return root


def goes_on(root: Path, whole: Path) -> None:
    """The same command with ``--ckpt_path last`` ends like the undisturbed run, in its folder."""
    assert main(["fit", *RUN, f"--trainer.default_root_dir={root}", "--ckpt_path=last"]) == 0
    same(root, whole)


def same(root: Path, whole: Path, tolerance: float = 0.0) -> None:
    found, expected = weights(root), weights(whole)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance)
    one, two = (
        [results(run) for run in (folder / "lightning_logs").iterdir()] for folder in (root, whole)
    )
    assert [run["metrics"] for run in one] == [run["metrics"] for run in two], (
        "the same best checkpoint was tested"
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
# mid-epoch, in the step before a validation, after it, and the last, which a test follows
@pytest.mark.parametrize("step", [2, 5, 7, 9])
def test_a_signal_stops_the_run_after_the_step(
    number: signal.Signals, status: int, step: int, whole: Path, tmp_path: Path
) -> None:
    sends = (
        "--trainer.callbacks=disturbances.SendsSignal",
        f"--trainer.callbacks.number={int(number)}",
    )
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        main(
            [
                "fit",
                *RUN,
                *sends,
                f"--trainer.callbacks.step={step}",
                f"--trainer.default_root_dir={tmp_path}",
            ]
        )
    assert stop.value.code == status
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    (checkpoint,) = tmp_path.glob("lightning_logs/maml-sinusoid-10shot-0/checkpoints/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == step + 1
    goes_on(tmp_path, whole)


def test_a_full_disk_leaves_the_checkpoint_before(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fills = (
        "--trainer.callbacks=disturbances.FillsDisk",
        "--trainer.callbacks.step=7",
        "--trainer.callbacks.size=9000",
    )
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *RUN, "--checkpoint.every_n_steps=4", *fills, root]) == 2
    last = tmp_path / "lightning_logs/maml-sinusoid-10shot-0/checkpoints/last.ckpt"
    assert (
        f"fewshot: error: cannot write the checkpoint {last} (File too large); make room"
        in capsys.readouterr().err
    )
    assert torch.load(last, weights_only=True)["global_step"] == 6
    assert {path.name for path in last.parent.iterdir()} == {
        "last.ckpt",
        "best.ckpt",
    }, "nothing half-written is left"
    goes_on(tmp_path, whole)


def test_checkpoints_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(
        "fewshot.callbacks.checkpoint.time.monotonic",
        lambda: now.__setitem__(0, now[0] + 25) or now[0],
    )
    saved: list[int] = []
    monkeypatch.setattr(
        "lightning.pytorch.Trainer.save_checkpoint",
        lambda self, *args: saved.append(self.global_step),
    )
    fit(tmp_path, *RUN, "--checkpoint.every_minutes=1", "--test_after_fit=false")
    assert saved != []
    assert len([step for step in saved if step not in (6, 10)]) >= 2


# ---------------------------------------------------------------------- several processes


def run_here(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    return subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_lightnings_own_launcher(whole: Path, tmp_path: Path) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    ran = run_here(
        [
            python(),
            "-m",
            "fewshot",
            "fit",
            *RUN,
            *two,
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    found, expected = weights(tmp_path), weights(whole)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
    one, other = (
        results(folder / "lightning_logs/maml-sinusoid-10shot-0") for folder in (tmp_path, whole)
    )
    assert one["episodes"] == 5
    for name, metric in other["metrics"].items():
        assert one["metrics"][name] == pytest.approx(metric, rel=1e-6)


@pytest.fixture
def slurm(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the shipped batch script as SLURM would, with stand-ins for its programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    stand_ins = {
        "srun": (
            'SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 "$@" &\n'
            'SLURM_PROCID=1 SLURM_LOCALID=1 SLURM_NODEID=0 "$@" &\nwait %1 && wait %2'
        ),
        "scontrol": f'echo "$@" >> {tmp_path}/scontrol.log',
        "fewshot": f'exec {python()} -m fewshot "$@"',
    }
    for name, body in stand_ins.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
        (programs / name).chmod(stat.S_IRWXU)

    def run(*args: Any) -> subprocess.CompletedProcess[str]:
        return run_here(
            ["bash", str(CONFIGS / "trainer/slurm.sbatch"), *args],
            PATH=f"{programs}{os.pathsep}{os.environ['PATH']}",
            FEWSHOT_CONFIGS=str(CONFIGS),
            FEWSHOT_RUNS=str(tmp_path / "runs"),
            SLURM_JOB_ID="4711",
            SLURM_NTASKS="2",
            SLURM_NTASKS_PER_NODE="2",
            SLURM_NNODES="1",
            SLURM_JOB_NAME="fewshot",
        )

    return run


def test_slurm_queues_a_job_again_that_it_interrupts(
    slurm: Callable[..., subprocess.CompletedProcess[str]], whole: Path, tmp_path: Path
) -> None:
    sends = [
        "--trainer.callbacks=disturbances.SendsSignal",
        f"--trainer.callbacks.number={int(signal.SIGUSR1)}",
    ]
    stopped = slurm(*RUN, *sends, "--trainer.callbacks.step=7", "--trainer.callbacks.rank=1")
    assert stopped.returncode == 128 + signal.SIGUSR1, stopped.stderr[-3000:]
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    root = tmp_path / "runs/4711"
    (checkpoint,) = root.glob("lightning_logs/*/checkpoints/last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 8
    ended = slurm(*RUN)
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert (tmp_path / "scontrol.log").read_text() == "requeue 4711\n"
    found, expected = weights(root), weights(whole)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)
