"""The options of `fewshot sweep` itself: what they are, and which go together."""

import argparse
from collections.abc import Sequence

from fewshot.cli.options import Options
from fewshot.cli.sweep_cluster import add_options
from fewshot.cli.sweep_plan import CLUSTER, SEARCH
from fewshot.cli.sweep_study import PRUNERS
from fewshot.errors import FewshotError, check_at_least, nearest

DESCRIPTION = (
    "Run `fewshot fit` for every combination of the values that its options are given, one process"
    " a run, and compare what comes out. With --search, ranges among the values are searched by"
    " what validations give. The same command goes on where it was stopped."
)
EPILOG = (
    "Every other option is one of `fewshot fit` (see its --help) and takes one value or several; in"
    " a search also a range: LOW:HIGH, LOW:HIGH:log, LOW:HIGH:STEP (integers where all are), or"
    " 'A|B|C'. Examples: fewshot sweep --config glyphs/protonet_5way1shot --model ProtoNet"
    " MatchingNet --seed_everything 0 1 2;  fewshot sweep --config glyphs/maml_5way1shot --search"
    " optuna --set model.inner_lr 0.01:0.5:log model.inner_steps 1:5"
)
USAGE = (
    "fewshot sweep [--config NAME ...] --OPTION VALUE [VALUE ...] [--jobs N] [--folder FOLDER]"
    " [--dry_run]\n                     [--search optuna [--trials N] [--seed SEED] [--pruner"
    " PRUNER]]\n                     [--launcher slurm --time LIMIT [--partition NAME] [--gpus N]"
    " [--cpus N]\n                      [--memory SIZE] [--slurm KEY=VALUE ...]]"
)
SEARCHES = ("optuna",)
LAUNCHERS = ("local", "slurm")


def read(args: Sequence[str]) -> argparse.Namespace:
    """The options that `args` set.

    Raises:
        FewshotError: one is wrong, or belongs to another that is not given.
    """
    given = _options().read(args)
    for name, known in (("search", SEARCHES), ("pruner", tuple(PRUNERS)), ("launcher", LAUNCHERS)):
        value = getattr(given, name, None)
        if value is not None and value not in known:
            raise FewshotError(f"--{name} is {value!r}{nearest(value, known)}")
    given.jobs = getattr(given, "jobs", None)
    check_at_least(1, jobs=1 if given.jobs is None else given.jobs, trials=given.trials)
    check_at_least(0, seed=given.seed)
    if "search" not in given:
        _refuse(args, SEARCH, "--search optuna")
    elif "dry_run" in given:
        raise FewshotError("--dry_run knows no trials: a search chooses as it goes; leave it out")
    if given.launcher != "slurm":
        _refuse(args, CLUSTER, "--launcher slurm")
    elif "search" in given:
        raise FewshotError("--search runs its trials on this machine; leave --launcher slurm out")
    return given


def _refuse(args: Sequence[str], options: Sequence[str], of: str) -> None:
    """Refuse the options but the first that belong to one that is not set."""
    said = [arg.partition("=")[0] for arg in args]
    for option in options[1:]:
        if f"--{option}" in said:
            raise FewshotError(f"--{option} is for {of}, which is not set; set it, or leave it out")


def _options() -> Options:
    parser = Options("sweep", DESCRIPTION, EPILOG)
    parser.usage = USAGE
    parser.add_argument(
        "--set",
        nargs="+",
        metavar=("OPTION", "VALUE"),
        help="the same as --OPTION VALUE [VALUE ...], such as --set model.inner_lr 0.1 0.4; several"
        " options may follow each other",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="how many runs go at the same time (default: 1); they share the cores, and all see the"
        " same GPUs",
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
    search = parser.add_argument_group("search")
    search.add_argument(
        "--search",
        metavar="NAME",
        help="search the ranges among the values, for each combination of the rest by itself, by"
        " the metric that validations are judged by: optuna (its TPE sampler). The best of each is"
        " tested",
    )
    search.add_argument(
        "--trials",
        type=int,
        default=20,
        metavar="N",
        help="how many settings are tried; more may be added later",
    )
    search.add_argument(
        "--seed", type=int, default=0, help="of the search; that of training is seed_everything"
    )
    search.add_argument(
        "--pruner",
        default="median",
        metavar="NAME",
        help="what ends trials early: median (worse than the median of earlier trials after as many"
        " validations, once five are complete), halving (successive halving) or none",
    )
    add_options(parser)
    return parser
