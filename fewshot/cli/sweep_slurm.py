"""The runs of a sweep as a SLURM job array, through submitit; what is cut off goes on."""

import getpass
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fewshot.cli.sweep_cluster import Cluster
from fewshot.cli.sweep_jobs import (
    PROGRAM,
    Child,
    Job,
    last_words,
    results_of,
    say,
    score,
    size,
)
from fewshot.cli.sweep_stop import Stop
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.files import atomic_write

RECORD = "slurm.json"
"""The file in the sweep's folder that says which job has which run."""
ASK = 30.0  # seconds between questions to the scheduler
GONE = 2  # times that it must not know a job: files of other machines come late
WARNING = (
    180  # seconds before the limit that a run is told: a meta-step, a validation, a checkpoint
)
CUT_SHORT = 128 + signal.SIGTERM
"""What a run ends with that SLURM has told to: it takes the machine after a time of grace."""
PATIENCE = 600.0  # seconds of grace that are waited for
CUT_OFF = 1000  # times that a run may reach the limit; each time it has come further


class Task:
    """A run, on the machine that SLURM gives it. submitit calls it there.

    Args:
        job: the run.
        program: what is called with `fit`.
    """

    def __init__(self, job: Job, program: Sequence[str]) -> None:
        self.job, self.program = job, program
        self.child: Child | None = None

    def __call__(self) -> None:
        """Begin or go on, and wait for the end.

        Raises:
            RuntimeError: the run has failed.
        """
        if self.job.is_done or self.job.is_under_way:
            print(f"{self.job.name} is done, or under way in another process", flush=True)
            return
        self.child = Child(self.job, "", None, self.program, _environment(), _ignore_warnings)
        while self.child.process.poll() is None:
            time.sleep(0.1)
        if self.child.process.returncode == CUT_SHORT:
            # by SLURM, not by `checkpoint`: a job that ended now would not be queued again
            time.sleep(PATIENCE)
        if self.child.process.returncode:
            raise RuntimeError(self.child.fault())

    def checkpoint(self) -> Any:
        """Have the run write its checkpoint, before SLURM takes the machine; what goes on later."""
        submitit = require("submitit", "cluster")
        if self.child is not None and self.child.process.returncode is None:
            os.kill(self.child.process.pid, signal.SIGTERM)
            self._wait()
        return submitit.helpers.DelayedSubmission(Task(self.job, self.program))

    def _wait(self) -> None:
        # a signal handler calls this, maybe in the middle of `poll`, which must find its child
        assert self.child is not None
        until = time.monotonic() + WARNING / 2
        ended = os.WEXITED | os.WNOWAIT | os.WNOHANG
        while time.monotonic() < until:
            try:
                if os.waitid(os.P_PID, self.child.process.pid, ended) is not None:
                    return
            except ChildProcessError:  # `poll` has found it
                return
            time.sleep(0.1)


def _environment() -> dict[str, str]:
    """The variables of a run: one process of its own, which starts others for several GPUs."""
    return {name: of for name, of in os.environ.items() if not name.startswith("SLURM_")}


def _ignore_warnings() -> None:
    """Ignore the signal that submitit heeds: SLURM sends it to all processes."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def run_on_slurm(jobs: Sequence[Job], cluster: Cluster, folder: Path, stop: Stop) -> list[str]:
    """Submit what is not done and not in the queue, and wait for the end of all.

    Returns:
        The names of those that have failed. When `stop` has noted a signal, the jobs go on.

    Raises:
        FewshotError: SLURM does not answer, or does not take them.
    """
    width = len(str(len(jobs)))
    place = {job.name: f"[{n:{width}}/{len(jobs)}] {job.name}" for n, job in enumerate(jobs, 1)}
    record, queue = _read(folder / RECORD), _queue()
    if queue is None:
        raise FewshotError("squeue does not answer; try again when SLURM does")
    waiting, new = [], []
    for job in jobs:
        results = results_of(job.run)
        if results is not None:
            say(f"{place[job.name]}: {score(results)}, done before")
            continue
        waiting.append(job)
        if job.name in record and record[job.name]["job"] in queue:
            say(f"{place[job.name]}: in the queue as job {record[job.name]['job']}")
        else:
            new.append(job)
    if new and not stop.noted:
        sizes = [size(job.log) for job in new]
        hows = ["to go on" if job.begins_with else "to begin" for job in new]
        numbers = _submit(new, cluster, folder)
        for job, number, printed in zip(new, numbers, sizes, strict=True):
            record[job.name] = {"job": number, "log": printed}
        with atomic_write(folder / RECORD) as file:
            json.dump(record, file, indent=1)
        for job, number, how in zip(new, numbers, hows, strict=True):
            say(f"{place[job.name]}: submitted {how}, job {number} ({job.log})")
    failed = _wait_for(waiting, record, place, stop)
    left = {record[job.name]["job"].partition("_")[0] for job in waiting if job.name in record}
    if stop.noted and left:
        say(
            "the jobs go on; the same command waits for them again, `scancel"
            f" {' '.join(sorted(left))}` ends them"
        )
    return failed


def _wait_for(
    waiting: list[Job], record: Mapping[str, Any], place: Mapping[str, str], stop: Stop
) -> list[str]:
    """Ask until none is in the queue, with a line at each end; the names of those that failed."""
    failed = []
    gone: dict[str, int] = {}
    while waiting and not stop.noted:
        _sleep(stop)
        queue = _queue()
        if queue is None:  # busy: asked again
            continue
        for job in [job for job in waiting if record[job.name]["job"] not in queue]:
            gone[job.name] = gone.get(job.name, 0) + 1
            results = results_of(job.run)
            if results is not None:
                say(f"{place[job.name]}: {score(results)}")
            elif gone[job.name] >= GONE:
                fault, line = last_words(job.log, record[job.name]["log"])
                why = fault or line or "it has printed nothing"
                say(f"{place[job.name]}: failed: {why} ({job.log}, {_logs(job, record)})")
                failed.append(job.name)
            else:
                continue
            waiting.remove(job)
    return failed


def _logs(job: Job, record: Mapping[str, Any]) -> Path:
    return job.folder / "slurm" / f"{record[job.name]['job']}_0_log.err"


def _sleep(stop: Stop) -> None:
    until = time.monotonic() + ASK
    while not stop.noted and (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.2))


def _queue() -> set[str] | None:
    """The user's jobs that SLURM has not ended, tasks of arrays one by one; None: no answer."""
    words = ["squeue", "--noheader", "--array", "--format=%i", f"--user={getpass.getuser()}"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return {*answer.stdout.split()} if answer.returncode == 0 else None


def _submit(jobs: Sequence[Job], cluster: Cluster, folder: Path) -> list[str]:
    """Submit jobs as one array; their numbers."""
    submitit = require("submitit", "cluster")
    executor = submitit.SlurmExecutor((folder / "slurm").resolve(), CUT_OFF)
    executor.update_parameters(
        job_name="fewshot-sweep",
        time=cluster.minutes,
        signal_delay_s=WARNING,
        array_parallelism=cluster.together or len(jobs),
        **cluster.options,
    )
    # where it lies must mean the same on another machine
    tasks = [Task(job._replace(folder=job.folder.resolve()), PROGRAM) for job in jobs]
    try:
        submitted = executor.submit_array(tasks)
    except Exception as error:  # submitit's, with what sbatch has printed
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = next((line for line in lines if "sbatch" in line and "error" in line), lines[-1])
        raise FewshotError(f"SLURM did not take the runs: {said}") from error
    return [str(job.job_id) for job in submitted]


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        return {str(n): {"job": of["job"], "log": of["log"]} for n, of in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise FewshotError(
            f"{file} is no record of jobs; remove it when none is in the queue, or set --folder to"
            " another folder"
        ) from error
