"""What is asked of SLURM for the runs of a sweep: the options of `--launcher slurm`."""

import argparse
import re
import shutil
from collections.abc import Mapping
from typing import Any, NamedTuple

from fewshot.errors import FewshotError, check_at_least
from fewshot.extras import require

PROGRAMS = ("sbatch", "squeue", "srun", "scontrol")
TIME = re.compile(r"(?:(?P<d>\d+)-)?(?P<a>\d+)(?::(?P<b>\d\d))?(?::(?P<c>\d\d))?")
MEMORY = re.compile(r"\d+[KMGT]B?")
ONE_TASK = (
    "each run is one task of an array on one node; configs/trainer/slurm.sbatch takes several"
)
TAKEN = {
    **dict.fromkeys(("array", "nodes", "ntasks", "ntasks-per-node"), ONE_TASK),
    **dict.fromkeys(
        ("output", "error", "open-mode", "signal", "requeue", "no-requeue"),
        "the sweep sets it, to go on after pre-emption",
    ),
    "partition": "set --partition",
    "time": "set --time",
    "gpus-per-node": "set --gpus",
    "cpus-per-task": "set --cpus",
    "mem": "set --memory",
}
"""Options of sbatch that ``--slurm`` does not hand on, and why."""


class Cluster(NamedTuple):
    """What each run is given."""

    minutes: int
    """Of a run, or of a part of it: what is cut off goes on."""
    together: int | None
    """How many runs at most go at the same time; None: as many as the cluster lets."""
    options: Mapping[str, Any]
    """The rest, by the names of submitit."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where runs go."""
    group = parser.add_argument_group("cluster")
    group.add_argument(
        "--launcher",
        default="local",
        metavar="NAME",
        help="local: processes of this machine; slurm: a job array, a task a run, which goes on"
        " after pre-emption and time limits. --jobs limits how many go at the same time",
    )
    group.add_argument(
        "--time", help="slurm: limit of a run as sbatch takes it, 24:00:00 or minutes; needed"
    )
    group.add_argument("--partition", metavar="NAME", help="slurm: where the runs are queued")
    group.add_argument("--gpus", type=int, metavar="N", help="slurm: GPUs of a run")
    group.add_argument("--cpus", type=int, metavar="N", help="slurm: CPU cores of a run")
    group.add_argument("--memory", metavar="SIZE", help="slurm: memory of a run, such as 16GB")
    group.add_argument(
        "--slurm",
        nargs="+",
        metavar="KEY=VALUE",
        help="slurm: further options of sbatch, such as account=lab constraint=a100; a KEY alone is"
        " a flag",
    )


def cluster_of(given: Any, together: int | None) -> Cluster:
    """What the options ask for.

    Raises:
        FewshotError: one is wrong or missing, or this is no cluster.
    """
    if "time" not in given:
        raise FewshotError("--launcher slurm needs the limit of a run; set --time, such as 4:00:00")
    options: dict[str, Any] = {"additional_parameters": {"requeue": True}}
    for name, key in (("gpus", "gpus_per_node"), ("cpus", "cpus_per_task")):
        if name in given:
            check_at_least(1, **{name: getattr(given, name)})
            options[key] = getattr(given, name)
    if "memory" in given:
        if not MEMORY.fullmatch(given.memory):
            raise FewshotError(f"--memory is {given.memory!r}; give a size, such as 16GB")
        options["mem"] = given.memory
    if "partition" in given:
        options["partition"] = given.partition
    for word in getattr(given, "slurm", ()):
        key, equals, value = word.removeprefix("--").partition("=")
        if not re.fullmatch(r"[a-z][a-z-]*", key) or (equals and not value):
            raise FewshotError(f"--slurm has {word!r}; give KEY=VALUE, such as account=lab")
        if key in TAKEN:
            raise FewshotError(f"--slurm has {word!r}, which is not handed on: {TAKEN[key]}")
        options["additional_parameters"][key] = value if equals else True
    minutes = minutes_of(given.time)
    require("submitit", "cluster")
    for program in PROGRAMS:
        if shutil.which(program) is None:
            raise FewshotError(
                f"{program} is not found, so this is no machine that SLURM takes jobs from; log in"
                " to one, or leave --launcher slurm out"
            )
    return Cluster(minutes, together, options)


def minutes_of(text: str) -> int:
    """A time as sbatch takes it, in minutes, rounded up.

    Raises:
        FewshotError: it is none, or nothing.
    """
    match = TIME.fullmatch(text)
    days, a, b, c = (match[name] for name in "dabc") if match else (None, None, None, None)
    if a is None:
        seconds = 0
    elif days is not None:  # days-hours:minutes:seconds, from the left
        seconds = 86400 * int(days) + 3600 * int(a) + 60 * int(b or 0) + int(c or 0)
    elif c is not None:
        seconds = 3600 * int(a) + 60 * int(b or 0) + int(c)
    else:  # minutes:seconds, or minutes
        seconds = 60 * int(a) + int(b or 0)
    if seconds <= 0:
        raise FewshotError(
            f"--time is {text!r}; give it as sbatch takes it: minutes, hours:minutes:seconds,"
            " days-hours"
        )
    return -(-seconds // 60)
