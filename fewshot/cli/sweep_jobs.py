"""The processes of a sweep: each a `fewshot fit` that begins, or goes on where it was cut off."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cli.runs import CHECKPOINTS, read_results
from fewshot.cli.sweep_stop import Stop
from fewshot.errors import FewshotError
from fewshot.files.claims import lock_of_one
from fewshot.tasks.estimates import format_estimate

PROGRAM = (sys.executable, "-m", "fewshot")
POLL = 0.1  # seconds between looks at the processes
GRACE = 60.0  # seconds that a stopped run has to write its checkpoint
FAULT = "fewshot: error: "


class Job(NamedTuple):
    """A run of the sweep and where it lies."""

    name: str
    args: Sequence[str]
    folder: Path
    then: Sequence[str] = ("--test_after_fit=true",)
    """Options that do not make another run of it."""

    @property
    def run(self) -> Path | None:
        """The run's folder, of several the newest; None where there is none."""
        found = {
            int(number): path
            for above in ("", "*/")  # a logger without a name has its runs in its `save_dir`
            for path in self.folder.glob(f"{above}{self.name}-*")
            for name, dash, number in [path.name.rpartition("-")]
            if name == self.name and dash and number.isdecimal() and path.is_dir()
        }
        return found[max(found)] if found else None

    @property
    def is_done(self) -> bool:
        """Whether it was trained and tested to the end."""
        return results_of(self.run) is not None

    @property
    def is_under_way(self) -> bool:
        """Whether another process has it, such as one whose sweep was killed."""
        if self.run is None:
            return False
        with lock_of_one(self.run.with_name(f".{self.run.name}.lock")) as free:
            return not free

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.folder / "logs" / f"{self.name}.log"

    @property
    def begins_with(self) -> Path | None:
        """The run that is gone on with; None where there is no checkpoint to do so."""
        run = self.run
        return run if run and (run / CHECKPOINTS / "last.ckpt").is_file() else None


def results_of(run: Path | None) -> dict[str, Any] | None:
    """The results of a run that was tested to the end; None of any other, and of none."""
    with suppress(FewshotError):
        return None if run is None else read_results(run)
    return None


def command(job: Job, program: Sequence[str] | None = None) -> list[str]:
    """The command line of a job as things stand; `program`: what does it, where not this one."""
    goes_on = job.begins_with
    return [
        *(program or PROGRAM),
        "fit",
        *job.args,
        *job.then,
        f"--trainer.default_root_dir={job.folder}",
        f"--run_name={job.name}",
        *([f"--ckpt_path={goes_on}"] if goes_on else []),
    ]


class Child:
    """A process under way.

    Args:
        job: what it does.
        number: in front of its lines.
        threads: how many it may use; None: as many as it likes.
        program: what is called with `fit`; None: this one.
        variables: its environment.
        before: what it does before it begins.
    """

    def __init__(
        self,
        job: Job,
        number: str,
        threads: int | None,
        program: Sequence[str] | None = None,
        variables: Mapping[str, str] = os.environ,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.job, self.number = job, number
        job.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**variables}
        if threads is not None:
            environment.setdefault("OMP_NUM_THREADS", str(threads))
        self.began, self._before = time.monotonic(), size(job.log)
        words = command(job, program)
        with job.log.open("a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                preexec_fn=before,
                start_new_session=True,  # a terminal's Ctrl-C is the sweep's to pass on
            )

    @property
    def seconds(self) -> str:
        """How long it has been under way."""
        return f"{time.monotonic() - self.began:,.0f} s"

    def told(self) -> tuple[str, bool]:
        """A line on how it has ended, and whether that is well."""
        run, code = self.job.run, self.process.returncode
        results = results_of(run)
        if code == 0 and results is not None:
            return f"{score(results)}, {self.seconds}", True
        return f"failed after {self.seconds}: {self.fault()} ({self.job.log})", False

    def fault(self) -> str:
        """Why it failed: its error, or else the last thing that it printed."""
        code = self.process.returncode
        said, line = last_words(self.job.log, self._before)
        if said:
            return said
        if code == 0:
            return "it ended well, but without results"
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return f"{how}; its last line: {line}" if line else how

    def kill(self) -> None:
        """End it at once, with the processes that it has started."""
        with suppress(OSError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()
        self.process.wait()


def run_jobs(jobs: Sequence[Job], together: int, stop: Stop) -> list[str]:
    """Run what is not done yet, so many `together`, with a line at each beginning and end.

    Returns:
        The names of those that have failed. When `stop` has noted a signal, all processes have
        ended: each was asked to, and wrote its checkpoint.
    """
    waiting = []
    for number, job in enumerate(jobs, start=1):
        place = f"[{number:{len(str(len(jobs)))}}/{len(jobs)}]"
        results = results_of(job.run)
        if results is None:
            waiting.append((place, job))
        else:
            say(f"{place} {job.name}: {score(results)}, done before")
    threads = threads_of(together)
    under_way: list[Child] = []
    failed: list[str] = []
    try:
        while (waiting or under_way) and not stop.noted:
            while waiting and len(under_way) < together and not stop.noted:
                place, job = waiting.pop(0)
                if job.is_under_way:
                    say(f"{place} {job.name}: under way in another process; left to it")
                    failed.append(job.name)
                    continue
                how = "goes on" if job.begins_with else "begins"
                say(f"{place} {job.name}: {how} ({job.log})")
                under_way.append(Child(job, place, threads))
            time.sleep(POLL)
            for child in [child for child in under_way if child.process.poll() is not None]:
                under_way.remove(child)
                line, is_well = child.told()
                say(f"{child.number} {child.job.name}: {line}")
                if not is_well:
                    failed.append(child.job.name)
    finally:
        end(under_way, stop)
    return [job.name for job in jobs if job.name in failed]


def last_words(log: Path, since: int) -> tuple[str, str]:
    """The last error in a log and its last line, each empty where there is none.

    Args:
        log: the file.
        since: bytes that are skipped: what earlier processes printed says nothing of the last one.
    """
    if not log.exists():
        return "", ""
    with log.open("rb") as stream:
        stream.seek(since)
        text = stream.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    faults = [line.removeprefix(FAULT) for line in lines if line.startswith(FAULT)]
    return (faults or [""])[-1], (lines or [""])[-1]


def threads_of(together: int) -> int | None:
    """How many threads each of so many processes may use; None: as many as it likes."""
    return max(1, cores() // together) if together > 1 else None


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def end(children: Sequence[Child], stop: Stop) -> None:
    """Have processes write their checkpoints and end; a second signal ends them at once."""
    for child in children:
        child.process.terminate()
    if children:
        with suppress(OSError):  # whoever read the lines may be gone
            say(f"stopping {len(children)} under way, which write their checkpoints first")
    until = time.monotonic() + GRACE
    while any(child.process.poll() is None for child in children):
        if time.monotonic() > until or len(stop.noted) > 1:
            break
        time.sleep(POLL)
    for child in children:
        child.kill()


def score(results: dict[str, Any]) -> str:
    """What a run is judged by, as a word and a figure."""
    monitor = results["monitor"]
    of = results["metrics"].get(monitor["metric"]) if monitor else None
    if of is None:
        return "tested"
    unit = results["units"].get(monitor["metric"], "")
    return f"{monitor['metric']} {format_estimate(of['mean'], of['ci95'], unit)}"


def size(file: Path) -> int:
    """How many bytes a file has; none where it does not exist."""
    return file.stat().st_size if file.exists() else 0


def say(line: str) -> None:
    """Print a line at once, whoever reads it."""
    print(line, flush=True)
