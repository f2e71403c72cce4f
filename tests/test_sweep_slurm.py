"""`fewshot sweep --launcher slurm`: job arrays by submitit, with stand-ins for SLURM's programs."""

import getpass
import importlib
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fake_slurm
import pytest
from sweeps import PROGRAM, Sweep, calls, sweep_in

from fewshot.cli import sweep_jobs, sweep_slurm
from fewshot.cli.sweep_cluster import minutes_of

pytest.importorskip("submitit")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="SLURM runs on Linux")
HERE = Path(__file__).resolve().parent
TWO = ("--model", "MAML", "ProtoNet", "--data", "Glyphs", "--launcher", "slurm", "--time", "90")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the stand-ins keep what they know."""
    state = fake_slurm.install(tmp_path)
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(sweep_jobs, "PROGRAM", PROGRAM)
    monkeypatch.setattr(sweep_slurm, "PROGRAM", sweep_jobs.PROGRAM)
    monkeypatch.setattr(sweep_slurm, "ASK", 0.1)
    yield state
    wait_for(lambda: not [*(state / "queue").iterdir()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sweep").mkdir()
    return tmp_path / "sweep"


@pytest.fixture
def sweep(folder: Path, state: Path, capfd: pytest.CaptureFixture[str]) -> Sweep:
    return sweep_in(folder, capfd)


def wait_for(what: Callable[[], Any]) -> None:
    until = time.monotonic() + 60
    while not what():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_an_array_is_submitted_and_waited_for(
    sweep: Sweep, folder: Path, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "8")  # of the job that the sweep itself may run in
    (state / "silent").touch()
    assert "squeue does not answer" in sweep(*TWO, code=2)
    out = sweep(
        *(*TWO, "--partition", "gpu", "--gpus", "2", "--cpus", "8", "--memory", "16GB"),
        *("--slurm", "account=lab", "exclusive", "--jobs", "1"),
    )
    assert "[1/2] MAML: submitted to begin, job 4701_0 (" in out
    assert "[2/2] PrototypicalNetwork: accuracy 50.00" in out
    assert "accuracy on Glyphs, 5-way 1-shot" in out
    script = (state / "jobs/4701.sh").read_text()
    for line in (
        *("partition=gpu", "gpus-per-node=2", "cpus-per-task=8", "mem=16GB", "time=90"),
        *("account=lab", "exclusive", "requeue", "array=0-1%1", "signal=USR2@180", "nodes=1"),
    ):
        assert f"#SBATCH --{line}\n" in script
    assert f"--user={getpass.getuser()}" in (state / "asked").read_text()
    # what is done is not submitted again
    out = sweep(*TWO)
    assert "[1/2] MAML: accuracy 60.00 ± 1.00 %, done before" in out
    assert len([*(state / "jobs").iterdir()]) == 1
    # what is new alone
    out = sweep(*TWO, "--seed_everything", "1")
    assert "job 4702_1" in out


@pytest.mark.parametrize("number", [signal.SIGUSR2, signal.SIGTERM])
def test_a_run_that_is_preempted_goes_on(
    number: int, sweep: Sweep, folder: Path, state: Path
) -> None:
    (folder / "hangs").write_text("MAML")

    def preempt() -> None:
        wait_for((folder / "MAML.ready").exists)
        (folder / "hangs").unlink()
        # SLURM signals all processes of a task
        os.kill(int((folder / "MAML.pid").read_text()), number)
        task = int((state / "pids/4701_0").read_text())
        os.kill(task, number)
        if number == signal.SIGTERM:  # SLURM takes the machine, and queues the job again
            wait_for((folder / "lightning_logs/MAML-0/checkpoints/last.ckpt").exists)
            time.sleep(0.5)
            (state / "again/4701_0").touch()
            (state / "requeued").write_text("requeue 4701_0\n")
            os.kill(task, signal.SIGKILL)

    out = beside(preempt, lambda: sweep(*TWO))
    assert "[1/2] MAML: accuracy 60.00 ± 1.00 %" in out
    assert (state / "requeued").read_text() == "requeue 4701_0\n"
    run = str(folder / "lightning_logs/MAML-0")
    assert [call[1] for call in calls(folder) if call[0] == "MAML"] == [None, run]


def beside(what: Callable[[], None], run: Callable[[], str]) -> str:
    thread = threading.Thread(target=what)
    thread.start()
    try:
        return run()
    finally:
        thread.join()


def test_jobs_outlive_the_sweep_which_finds_them_again(
    sweep: Sweep, folder: Path, state: Path
) -> None:
    (folder / "hangs").write_text("MAML")

    def stop() -> None:
        wait_for((folder / "MAML.ready").exists)
        os.kill(os.getpid(), signal.SIGINT)

    out = beside(stop, lambda: sweep(*TWO, code=130))
    assert "the jobs go on; the same command waits for them again, `scancel 4701` ends them" in out
    (folder / "hangs").unlink()
    (folder / "lightning_logs/MAML-0/checkpoints/last.ckpt").touch()

    def end() -> None:
        wait_for(lambda: not (state / "queue/4701_1").exists())
        os.kill(int((folder / "MAML.pid").read_text()), signal.SIGKILL)

    out = beside(end, lambda: sweep(*TWO, code=2))
    assert "[1/2] MAML: in the queue as job 4701_0" in out
    assert "[1/2] MAML: failed: " in out
    assert len([*(state / "jobs").iterdir()]) == 1
    out = sweep(*TWO)
    assert "[1/2] MAML: submitted to go on, job 4702 (" in out
    assert "#SBATCH --array" not in (state / "jobs/4702.sh").read_text()


def test_a_failure_is_told(sweep: Sweep, folder: Path, state: Path) -> None:
    (folder / "fails").write_text("MAML")
    out = sweep(*TWO, code=2)
    assert "[1/2] MAML: failed: lr is x; give a number (" in out
    assert "1 of 2 runs are not done: MAML; the same command tries them again" in out
    (state / "fails").touch()
    out = sweep(*TWO, code=2)
    assert "SLURM did not take the runs: sbatch: error: invalid partition" in out
    (folder / "slurm.json").write_text("[]")
    assert "slurm.json is no record of jobs; remove it" in sweep(*TWO, code=2)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--launcher slurn", "--launcher is 'slurn'; did you mean 'slurm'?"),
        ("--partition gpu", "--partition is for --launcher slurm, which is not set"),
        ("--launcher slurm", "--launcher slurm needs the limit of a run; set --time"),
        ("--launcher slurm --time soon", "--time is 'soon'; give it as sbatch takes it"),
        ("--launcher slurm --time 0", "--time is '0'"),
        ("--launcher slurm --time 9 --gpus 0", "gpus is 0; it must be at least 1"),
        ("--launcher slurm --time 9 --memory 16", "--memory is '16'; give a size, such as 16GB"),
        ("--launcher slurm --time 9 --slurm account=", "--slurm has 'account='; give KEY=VALUE"),
        ("--launcher slurm --time 9 --slurm nodes=2", "not handed on: each run is one task of"),
        ("--launcher slurm --time 9 --slurm mem=2G", "not handed on: set --memory"),
        ("--launcher slurm --time 9 --search optuna", "--search runs its trials on this machine"),
    ],
)
def test_refused_before_anything_starts(
    args: str, message: str, sweep: Sweep, folder: Path
) -> None:
    (line,) = sweep(
        "--model", "MAML", "ANIL", "--data", "Glyphs", *args.split(), code=2
    ).splitlines()
    assert line.startswith("fewshot: error: ")
    assert message in line
    assert [*folder.iterdir()] == []


def test_where_there_is_no_slurm(sweep: Sweep, tmp_path: Path) -> None:
    (tmp_path / "bin/sbatch").unlink()
    assert shutil.which("sbatch") is None
    (line,) = sweep(*TWO, code=2).splitlines()
    assert "sbatch is not found, so this is no machine that SLURM takes jobs from" in line


def test_without_submitit(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise ModuleNotFoundError(name=package)

    monkeypatch.setattr(importlib, "import_module", missing)
    (line,) = sweep(*TWO, code=2).splitlines()
    assert line.endswith("submitit is not installed; pip install 'fewshot-lightning[cluster]'")


@pytest.mark.parametrize(
    ("text", "minutes"),
    [
        *(("90", 90), ("90:00", 90), ("90:01", 91), ("24:00:00", 1440)),
        *(("2-0", 2880), ("1-12", 2160), ("1-12:30", 2190), ("1-12:30:30", 2191)),
    ],
)
def test_times(text: str, minutes: int) -> None:
    assert minutes_of(text) == minutes
