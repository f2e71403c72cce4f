"""`fewshot compare`: runs beside each other; `rank` and `summary` are two of its views."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cli.options import Options
from fewshot.cli.pairing import Difference, Row, grouped
from fewshot.cli.rank import by_source, is_apart, ranks
from fewshot.cli.run_settings import differences, settings, told
from fewshot.cli.runs import Run, find_runs, judged_by, protocol, read_runs, with_metric
from fewshot.cli.sheet import FORMATS, Column, Figure, Sheet
from fewshot.cli.summary import by_metric
from fewshot.errors import FewshotError


class View(NamedTuple):
    """Another table than that of the differences between runs."""

    sheet: Callable[[Sequence[Run], str | None], Sheet]
    too_few: str
    """What is said of fewer than two runs."""


VIEWS = {
    "source": View(by_source, "fewshot rank compares runs; give two results.json or more"),
    "metric": View(by_metric, "a deviation needs two runs at least; name more folders"),
}
"""What is shown with `--by` other than `run`."""
PICTURES = (".png", ".svg")
RUN = (
    "the folder of a tested run, its results.json or a checkpoint of it, or a folder of runs, such"
    " as lightning_logs"
)
BY = (
    "what a row is: a run, with its difference to the first; a source, with the runs' ranks on each"
    " (`fewshot rank`); or a metric, over all runs together (`fewshot summary`)"
)


def compare(args: Sequence[str]) -> None:
    """Run the command."""
    description = (
        "Compare runs: means, differences to the first run episode by episode, ranks, and what"
        " differs in their configs. Runs that differ in seed_everything alone are one row."
    )
    parser = _options("compare", description)
    parser.add_argument("--by", choices=["run", *VIEWS], default="run", help=BY)
    parser.add_argument("--plot", metavar="FILE", help="draw means and intervals: .png or .svg")
    given = parser.read(args)
    plot = Path(given.plot) if "plot" in given else None
    if given.by != "run":
        if plot:
            raise FewshotError(f"--plot draws runs, not rows by {given.by}; leave one of them out")
        _show(VIEWS[given.by], given)
        return
    if plot and plot.suffix.lower() not in PICTURES:
        raise FewshotError(f"--plot is {plot}; give a name that ends in {' or '.join(PICTURES)}")
    rows, sheet = compared(getattr(given, "runs", []), getattr(given, "metric", None))
    sheet.write(given.format)
    if plot:
        from fewshot.cli.forest import draw  # here: most do without matplotlib

        unit = rows[0].runs[0].results["units"].get(rows[0].metric, "")
        draw({_label(row, rows): row.estimate for row in rows}, sheet.title, unit, plot)


def rank(args: Sequence[str]) -> None:
    """Run the command."""
    description = "Compare runs on each source that all were tested on, and by their average rank."
    _show(VIEWS["source"], _options("rank", description).read(args))


def summary(args: Sequence[str]) -> None:
    """Run the command."""
    description = "Print each metric's mean, deviation and 95 % interval over runs (seeds, folds)."
    _show(VIEWS["metric"], _options("summary", description).read(args))


def _options(command: str, description: str) -> Options:
    parser = Options(command, description)
    parser.add_argument("runs", nargs="*", metavar="RUN", help=RUN)
    parser.add_argument(
        "--metric", metavar="NAME", help="compare by this one, not by what the runs are judged by"
    )
    parser.add_argument(
        "--format", choices=list(FORMATS), default="table", help="how the table is written"
    )
    return parser


def _show(view: View, given: Any) -> None:
    named: list[str] = getattr(given, "runs", [])
    files, untested = find_runs(named)
    if max(len(files), len(named)) < 2:
        raise FewshotError(view.too_few)
    runs = read_runs(files)
    if len(runs) < 2:  # one is named twice
        raise FewshotError(view.too_few)
    sheet = view.sheet(runs, getattr(given, "metric", None))
    sheet._replace(notes=[*sheet.notes, *_left_out(untested)]).write(given.format)


def _left_out(untested: Sequence[Path]) -> list[str]:
    return [f"left out, not tested: {', '.join(map(str, untested))}"] if untested else []


def compared(paths: Sequence[str], asked: str | None = None) -> tuple[list[Row], Sheet]:
    """The rows of the comparison, and these as a table.

    Args:
        paths: of the runs, or of folders that hold them; the first is what others are compared to.
        asked: the metric; None: what the runs are judged by.

    Raises:
        FewshotError: a run has no results, or they have no metric in common.
    """
    files, untested = find_runs(paths)
    if not files:
        raise FewshotError("no run is named; give folders of tested runs, such as lightning_logs")
    runs, lacking = with_metric(read_runs(files, partial=True), paths, asked)
    metric, sign = judged_by(runs, asked)
    known = {run.name: settings(run) for run in runs}
    rows = grouped(runs, known, metric)
    notes = _left_out(untested)
    if lacking:
        notes.append(f"left out, without {metric}: {', '.join(run.name for run in lacking)}")
    if not sign:
        notes.append(f"no ranks: no run says whether more or less of {metric} is better")
    return rows, _sheet(rows, sign, differences([known[row.runs[0].name] for row in rows]), notes)


def _sheet(
    rows: Sequence[Row], sign: int, differ: Mapping[str, Sequence[str]], notes: Sequence[str]
) -> Sheet:
    first, metric = rows[0].runs[0].results, rows[0].metric
    unit = first["units"].get(metric, "")
    title = f"{metric} on {protocol(first)}" if _is_one_protocol(rows) else metric
    against = [None, *(row.less(rows[0]) for row in rows[1:])]
    marks, is_alone = [_marks(row) for row in rows], len(rows) == 1
    columns = {
        Column("#"): range(1, len(rows) + 1),
        Column("run", is_text=True, may_stand_below=True): [_label(row, rows) for row in rows],
        Column("seeds", in_csv_alone=True): [_seeds(row) for row in rows],
        **({Column("mark", is_text=True): marks} if any(marks) else {}),
        Column(_titled(metric, unit), (metric, f"{metric} ci95")): [
            Figure(*row.estimate, unit, bare=True) for row in rows
        ],
        Column(
            _titled("difference to 1", "points" if unit == "%" else unit),
            ("difference", "difference ci95"),
            in_csv_alone=is_alone,
        ): [of and Figure(*of.estimate, unit, bare=True, signed=True) for of in against],
        Column("compared", in_csv_alone=True): [of and of.way for of in against],
        Column("rank", form="{:g}", in_csv_alone=is_alone): _ranks(rows, sign),
        Column("test s", ("seconds",), "{:,.1f}"): [_seconds(row) for row in rows],
        Column("parameters", form="{:,}"): [row.runs[0].results.get("parameters") for row in rows],
        **{Column(key, in_csv_alone=True): texts for key, texts in differ.items()},
    }
    return Sheet(
        f"{title}, mean ± 95 % CI",
        [*columns],
        [*zip(*columns.values(), strict=True)],
        notes=[*_notes(rows, against), *told(differ), *notes],
    )


def _titled(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _ranks(rows: Sequence[Row], sign: int) -> list[float | None]:
    """Ranks of the rows that have a mean; those that do not differ share theirs."""
    known = [row for row in rows if math.isfinite(row.estimate.mean)] if sign else []

    def alike(i: int, j: int) -> bool:
        return not is_apart(known[i].less(known[j]).estimate)

    places = dict(zip(map(id, known), ranks([r.estimate for r in known], sign, alike), strict=True))
    return [places.get(id(row)) for row in rows]


def _seconds(row: Row) -> float | None:
    """Of a test, on average over the seeds; None where a file does not say it."""
    found = [run.results.get("seconds") for run in row.runs]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else None


def _label(row: Row, rows: Sequence[Row]) -> str:
    """The folder's name, or its path where another has the same name; with its seeds if several."""
    names = [_name(other) for other in rows]
    label = name if names.count(name := _name(row)) == 1 else row.runs[0].name
    return f"{label}, seeds {_seeds(row)}" if len(row.runs) > 1 else label


def _name(row: Row) -> str:
    """The name of a row's folder; of several seeds without that of the first, as sweeps say it."""
    name = row.runs[0].folder.resolve().name
    return re.sub(r"(?<=.)-seed_everything=\d+\b", "", name) if len(row.runs) > 1 else name


def _seeds(row: Row) -> str:
    seeds = [run.results.get("seed_everything") for run in row.runs]
    return " ".join(str(seed) for seed in seeds if seed is not None)


def _marks(row: Row) -> str:
    marks = {
        "UNTRAINED": any(run.results["untrained"] for run in row.runs),
        "PARTIAL": any(run.results["partial"] for run in row.runs),
        "VALIDATION": any(run.results["stage"] != "test" for run in row.runs),
    }
    return " ".join(mark for mark, is_so in marks.items() if is_so)


def _is_one_protocol(rows: Sequence[Row]) -> bool:
    found = [protocol(row.runs[0].results) for row in rows]
    return all(one == other for one, other in pairwise(found))


def _notes(rows: Sequence[Row], against: Sequence[Difference | None]) -> list[str]:
    """How the differences were made, and a line on those whose episodes are not the same."""
    ways = {of.way for of in against if of is not None}
    notes = ["ranks that do not differ at the 5 % level are shared"] if ways else []
    if ways & {"paired", "paired, over seeds"}:
        notes.insert(0, "differences of single runs are paired by episode (Student's t)")
    if any(len(row.runs) > 1 for row in rows):
        notes.append("intervals of rows of several seeds, and of their differences, are over seeds")
    apart: dict[str, list[str]] = {}
    for number, of in enumerate(against, start=1):
        if of is not None and of.way == "unpaired":
            apart.setdefault(of.reason, []).append(str(number))
    if apart:
        reasons = (f"{', '.join(numbers)} ({reason})" for reason, numbers in apart.items())
        notes.append(f"compared with 1 unpaired: {'; '.join(reasons)}")
    return notes
