"""`fewshot reproduce NAME`: run a record's commands and judge what comes out."""

import math
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fewshot.cli import configs, records
from fewshot.cli.options import Options
from fewshot.cli.records import PLACEHOLDER, Figure, Record, Step
from fewshot.cli.runs import read_results
from fewshot.errors import FewshotError

PROGRAM = (sys.executable, "-m", "fewshot")
MEANS = {"DATA": "the folder with the benchmark's files", "MODEL": "a language model's folder"}


def reproduce(args: Sequence[str]) -> None:
    """Run the command.

    Raises:
        FewshotError: no such record, a value that it needs is missing, its config does not run.
        SystemExit: 1, where a figure lies outside of its interval.
    """
    parser = _options()
    given = parser.read(args)
    if "list" in given:
        Console().print(_table())
        return
    if "name" not in given:
        raise FewshotError("no record is named; `fewshot reproduce --list` shows them")
    record = records.find(given.name)
    check(record)
    values = _values(record, getattr(given, "values", []), asked="dry_run" not in given)
    if "dry_run" in given:
        for step in record.steps:
            print(fill(step.command, values))
        return
    outside = _run(record, values, Path(given.folder))
    if outside:
        raise SystemExit(1)


def _options() -> Options:
    parser = Options(
        "reproduce",
        "Run what a figure of the documentation was measured by, and say whether the outcome lies"
        " in its interval (exit status 1 where it does not).",
        "Example: fewshot reproduce omniglot/maml_5way1shot DATA=~/omniglot",
    )
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="the record, such as glyphs/protonet"
    )
    parser.add_argument(
        "values",
        nargs="*",
        metavar="PLACEHOLDER=VALUE",
        help="what stands for DATA (the folder with the benchmark's files) and the like",
    )
    parser.add_argument(
        "--list", action="store_true", help="print every record, and do nothing else"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="print the commands, and do nothing else"
    )
    parser.add_argument("--folder", default="reproduced", help="where the runs lie")
    return parser


def _table() -> Table:
    table = Table(
        title="Records (fewshot reproduce NAME)", title_justify="left", title_style="bold"
    )
    for column in ("record", "what it is", "first figure"):
        table.add_column(column, no_wrap=column == "record")
    for record in records.read_all():
        figure = record.steps[0].figures[0]
        table.add_row(record.name, f"{record.title}; {record.protocol}", str(figure))
    return table


def check(record: Record) -> None:
    """Check that a record's commands are the program's, and that its configs exist.

    Raises:
        FewshotError: what does not run.
    """
    for step in record.steps:
        _, words = split(step.command)
        if words[:1] != ["fewshot"]:
            raise FewshotError(
                f"the record {record.name} is made by `{step.command}`, which only a checkout has;"
                " run that there"
            )
        for name in step.configs:
            try:
                configs.locate(name)
            except FewshotError as error:
                raise FewshotError(f"the record {record.name} does not run: {error}") from error


def split(command: str) -> tuple[dict[str, str], list[str]]:
    """The variables before a command, such as ``OMP_NUM_THREADS=1``, and its words."""
    words, variables = shlex.split(command), {}
    while words and "=" in words[0]:
        name, _, variables[name] = words.pop(0).partition("=")
    return variables, words


def fill(command: str, values: Mapping[str, object]) -> str:
    """A command with the values of its placeholders that are known."""
    return PLACEHOLDER.sub(lambda found: shlex.quote(str(values.get(found[0], found[0]))), command)


def _values(record: Record, given: Sequence[str], asked: bool) -> dict[str, str]:
    """The values of the placeholders; `asked`: none may be missing."""
    values = {}
    for word in given:
        name, equals, value = word.partition("=")
        if not equals or name not in record.needs:
            wanted = ", ".join(record.needs) or "nothing"
            raise FewshotError(f"{word!r} fills no placeholder; {record.name} needs {wanted}")
        values[name] = str(Path(value).expanduser())
    missing = [name for name in record.needs if name not in values]
    if missing and asked:
        name = missing[0]
        what = MEANS.get(name, "a checkpoint of another record")
        raise FewshotError(f"{record.name} needs {name}, {what}; add {name}=PATH")
    return values


def _run(record: Record, values: dict[str, str], folder: Path) -> int:
    """Run all steps; how many figures lie outside of their intervals."""
    outside, known = 0, dict(values)
    for number, step in enumerate(record.steps):
        means: dict[str, list[float]] = {}
        for fold in range(step.folds or 1):
            run = _one(record, step, f"{number}-{fold}", known | {"FOLD": str(fold)}, folder)
            if (best := run / "checkpoints/best.ckpt").is_file():
                known["BEST"] = str(best)
            for metric, of in read_results(run)["metrics"].items():
                means.setdefault(metric, []).append(math.nan if of["mean"] is None else of["mean"])
        for figure in step.figures:
            told, inside = judged(figure, means, step.folds)
            print(f"{record.name}, {step.task}: {told}")
            outside += not inside
    return outside


def _one(record: Record, step: Step, number: str, values: Mapping[str, str], folder: Path) -> Path:
    """Run a command in a process of its own; the folder of its run."""
    variables, words = split(fill(step.command, values))
    above = folder / record.name / number
    command = [*PROGRAM, *words[1:], f"--trainer.default_root_dir={above}"]
    print(f"$ {shlex.join(['fewshot', *command[3:]])}", flush=True)
    done = subprocess.run(command, env=os.environ | variables, check=False)
    found = sorted(above.rglob("results.json"), key=lambda path: path.stat().st_mtime)
    if done.returncode or not found:
        raise FewshotError(
            f"the record {record.name} does not run: its command ended with {done.returncode}; what"
            " it printed says why"
        )
    return found[-1].parent


def judged(
    figure: Figure, means: Mapping[str, Sequence[float]], folds: int | None
) -> tuple[str, bool]:
    """What is said of a figure that came out, and whether it lies in the interval of the record."""
    if figure.metric not in means:
        return f"{figure.metric} was not measured; it has {', '.join(means)}", False
    of = means[figure.metric]
    mean = math.fsum(of) / len(of) * (100 if figure.unit == "%" else 1)
    width, came = figure.interval(folds), f"{figure.metric} {mean:.4g} {figure.unit}".rstrip()
    if width is None:
        return f"{came}; the record has {figure}, without an interval", True
    inside = abs(mean - figure.mean) <= width
    where = "within" if inside else "outside of"
    return f"{came}, {where} the interval of the record, {figure}", inside
