"""`fewshot sweep`: a run of `fewshot fit` for each combination of values, then their comparison."""

import io
import shlex
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from fewshot.cli.compare import compared
from fewshot.cli.options import Options
from fewshot.cli.sweep_jobs import Job, Stop, command, results_of, run_jobs
from fewshot.cli.sweep_places import check_loggers, named
from fewshot.cli.sweep_plan import Combination, combinations, groups
from fewshot.errors import FewshotError, check_at_least
from fewshot.files import atomic_write
from fewshot.files.claims import lock_of_one

DESCRIPTION = (
    "Run `fewshot fit` for every combination of the values that its options are given, one process"
    " a run, and compare what comes out. The same command goes on where it was stopped."
)
EPILOG = (
    "Every other option is one of `fewshot fit` (see its --help) and takes one value or several."
    " Example: fewshot sweep --config glyphs/protonet_5way1shot --model ProtoNet MatchingNet"
    " --seed_everything 0 1 2"
)
TABLES = {"comparison.csv": "csv", "comparison.md": "markdown"}
"""The files that hold the comparison, and their formats."""


def sweep(args: Sequence[str]) -> None:
    """Run the command.

    Raises:
        FewshotError: the options make no sweep, before anything is started; or, at the end, which
            runs have failed.
    """
    own, choices = groups(args)
    parser = _options()
    given = parser.read(own)
    check_at_least(1, jobs=given.jobs)
    folder = Path(given.folder)
    if folder.exists() and not folder.is_dir():
        raise FewshotError(f"--folder is {folder}, which is a file; name a folder")
    plan = combinations(choices)
    check_loggers(choices, folder)
    if "dry_run" in given:
        jobs = _jobs(named(plan, folder), folder)
        for job in jobs:
            print(f"# done: {job.run}" if job.is_done else shlex.join(command(job)))
        return
    folder.mkdir(parents=True, exist_ok=True)
    with lock_of_one(folder / ".sweep.lock") as alone, Stop() as stop:
        if not alone:
            raise FewshotError(
                f"another sweep is under way in {folder}; wait until it has ended, or set --folder"
            )
        jobs = _jobs(named(plan, folder, write=True), folder)
        done = sum(job.is_done for job in jobs)
        print(f"{len(jobs)} runs in {folder}" + (f", {done} of them done before" if done else ""))
        failed = run_jobs(jobs, given.jobs, stop)
        stop.leave()
    faults = []
    if failed:
        faults.append(
            f"{len(failed)} of {len(jobs)} runs are not done: {', '.join(failed)}; the same"
            " command tries them again"
        )
    try:
        _compare(jobs, folder)
    except FewshotError as error:
        faults.append(str(error))
    if faults:
        raise FewshotError("; ".join(faults))


def _options() -> Options:
    parser = Options("sweep", DESCRIPTION, EPILOG)
    parser.usage = (
        "fewshot sweep [--config NAME ...] --OPTION VALUE [VALUE ...] [--jobs N] [--folder FOLDER]"
        " [--dry_run]"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        metavar=("OPTION", "VALUE"),
        help="the same as --OPTION VALUE [VALUE ...], such as --set model.inner_lr 0.1 0.4",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="how many runs go at the same time; they share the cores, and all see the same GPUs",
    )
    parser.add_argument(
        "--folder",
        default="sweep",
        help="where the runs, what they print (logs) and the comparison lie",
    )
    parser.add_argument(
        "--dry_run",
        action="store_true",
        help="print the command lines of the runs, and do nothing else",
    )
    return parser


def _jobs(plan: Sequence[Combination], folder: Path) -> list[Job]:
    return [Job(each.name, each.args, folder) for each in plan]


def _compare(jobs: Sequence[Job], folder: Path) -> None:
    """Print the comparison of the runs that are done, and write it into the folder."""
    runs = [str(job.run) for job in jobs if job.run is not None and results_of(job.run)]
    if not runs:
        return
    _, sheet = compared(runs)
    for name, form in TABLES.items():
        text = io.StringIO(newline="")
        with redirect_stdout(text), redirect_stderr(io.StringIO()):  # notes are told below
            sheet.write(form)
        with atomic_write(folder / name) as file:
            file.write(text.getvalue())
    sheet.write("table")
