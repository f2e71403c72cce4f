"""`fewshot sweep`: a run of `fewshot fit` for each combination of values, then their comparison."""

import io
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from fewshot.cli import sweep_options, sweep_tuning
from fewshot.cli.compare import compared
from fewshot.cli.sweep_cluster import Cluster, cluster_of
from fewshot.cli.sweep_jobs import Job, command, results_of, run_jobs
from fewshot.cli.sweep_places import check_loggers, named
from fewshot.cli.sweep_plan import Choice, Combination, combinations, groups
from fewshot.cli.sweep_ranges import is_plain_range
from fewshot.cli.sweep_slurm import run_on_slurm
from fewshot.cli.sweep_stop import Stop
from fewshot.errors import FewshotError
from fewshot.files import atomic_write
from fewshot.files.claims import lock_of_one

TABLES = {"comparison.csv": "csv", "comparison.md": "markdown"}
"""The files that hold the comparison, and their formats."""


def sweep(args: Sequence[str]) -> None:
    """Run the command.

    Raises:
        FewshotError: the options make no sweep, before anything is started; or, at the end, which
            runs have failed.
    """
    own, choices = groups(args)
    given = sweep_options.read(own)
    folder = Path(given.folder)
    if folder.exists() and not folder.is_dir():
        raise FewshotError(f"--folder is {folder}, which is a file; name a folder")
    faults = (_search if "search" in given else _every)(choices, given, folder)
    if faults:
        raise FewshotError("; ".join(faults))


def _every(choices: Sequence[Choice], given: Any, folder: Path) -> list[str]:
    """Run every combination and compare; what is wrong then."""
    _check_no_ranges(choices)
    plan = combinations(choices)
    check_loggers(choices, folder)
    cluster = cluster_of(given, given.jobs) if given.launcher == "slurm" else None
    if "dry_run" in given:
        for job in _jobs(named(plan, folder), folder):
            print(f"# done: {job.run}" if job.is_done else shlex.join(command(job)))
        return []
    with _alone_in(folder) as stop:
        jobs = _jobs(named(plan, folder, write=True), folder)
        done = sum(job.is_done for job in jobs)
        before = f", {done} of them done before" if done else ""
        print(f"{len(jobs)} runs in {folder}{before}")
        faults = _tested(jobs, given.jobs or 1, stop, cluster)
    return [*faults, *_compared(jobs, folder)]


def _search(choices: Sequence[Choice], given: Any, folder: Path) -> list[str]:
    """Search the ranges, then test and compare the best settings; what is wrong then."""
    check_loggers(choices, folder)
    search = sweep_tuning.planned(choices, given, folder)
    with _alone_in(folder) as stop:
        jobs, faults = sweep_tuning.run(search, folder, given.jobs or 1, stop)
        faults += _tested(jobs, given.jobs or 1, stop)
    faults += _compared(jobs, folder)
    for line in sweep_tuning.told(jobs):
        print(line)
    return faults


@contextmanager
def _alone_in(folder: Path) -> Iterator[Stop]:
    """Keep other sweeps out of a folder, and note signals, for the time of a block.

    Raises:
        FewshotError: another sweep is under way there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with lock_of_one(folder / ".sweep.lock") as alone, Stop() as stop:
        if not alone:
            raise FewshotError(
                f"another sweep is under way in {folder}; wait until it has ended, or set --folder"
            )
        yield stop


def _tested(
    jobs: Sequence[Job], together: int, stop: Stop, cluster: Cluster | None = None
) -> list[str]:
    """Run what is not done, here or on a cluster; what is wrong then."""
    if cluster is None:
        failed = run_jobs(jobs, together, stop)
    else:
        failed = run_on_slurm(jobs, cluster, jobs[0].folder, stop)
    stop.leave()
    if not failed:
        return []
    return [
        f"{len(failed)} of {len(jobs)} runs are not done: {', '.join(failed)}; the same command"
        " tries them again"
    ]


def _check_no_ranges(choices: Sequence[Choice]) -> None:
    for choice in choices:
        for value in choice.values:
            if is_plain_range(value):
                raise FewshotError(
                    f"--{choice.option} is {value}, which is a range; set --search optuna too"
                )


def _jobs(plan: Sequence[Combination], folder: Path) -> list[Job]:
    return [Job(each.name, each.args, folder) for each in plan]


def _compared(jobs: Sequence[Job], folder: Path) -> list[str]:
    """Print the comparison of the runs that are done, and write it; what is wrong with it."""
    runs = [str(job.run) for job in jobs if results_of(job.run)]
    if not runs:
        return []
    try:
        _, sheet = compared(runs)
    except FewshotError as error:
        return [str(error)]
    for name, form in TABLES.items():
        text = io.StringIO(newline="")
        with redirect_stdout(text), redirect_stderr(io.StringIO()):  # notes are told below
            sheet.write(form)
        with atomic_write(folder / name) as file:
            file.write(text.getvalue())
    sheet.write("table")
    return []
