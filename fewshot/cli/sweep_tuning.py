"""A sweep with ranges: they are searched for each combination, and the best of each is tested."""

import io
import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cli.built import Judge, judges
from fewshot.cli.sheet import Column, Sheet
from fewshot.cli.sweep_jobs import Job
from fewshot.cli.sweep_places import named
from fewshot.cli.sweep_plan import Choice, Combination, combinations, content_of, key_of, meaning_of
from fewshot.cli.sweep_ranges import Range, placed, ranges_of
from fewshot.cli.sweep_search import Searched, Trials, shown
from fewshot.cli.sweep_stop import Stop
from fewshot.cli.sweep_study import Outcome, Plan, Study
from fewshot.errors import FewshotError
from fewshot.extras import require
from fewshot.files import atomic_write
from fewshot.tasks.estimates import scale_of

RECORD = "search.json"
"""The file in the folder that says what is searched there."""
SEEDS = "seed_everything"


class Search(NamedTuple):
    """What is searched, checked before anything starts."""

    plan: Plan
    parts: list[Combination]
    """What is not searched over; each is searched in by itself, with values for the ranges."""
    judges: list[Judge]
    """What validations are judged by, of each."""
    seeds: Sequence[str]
    """Those that the best settings are trained with."""
    settings: Mapping[str, Any]


def planned(choices: Sequence[Choice], given: Any, folder: Path) -> Search:
    """The search that the options mean.

    Raises:
        FewshotError: they mean none, or another than was begun in the folder.
    """
    require("optuna", "search")
    ranges = ranges_of(choices)
    if not ranges:
        raise FewshotError(
            f"--search {given.search} has no range to search; give one, such as --set"
            " model.inner_lr 0.01:0.5:log"
        )
    seeds = next((choice.values for choice in choices if choice.plain == SEEDS), ())
    parts = combinations([_first(choice, ranges) for choice in choices], one_will_do=True)
    plan = Plan(ranges, given.trials, given.seed, given.pruner)
    settings = {
        **{f"--{choice.option}": _settings(meaning_of(choice)) for choice in choices},
        **{f"--{name}": getattr(given, name) for name in ("search", "seed", "pruner")},
    }
    _check_same(folder / RECORD, settings)
    ends = [
        placed(part.args, {option: of.ends[end] for option, of in ranges.items()})
        for part in parts
        for end in (0, 1)
    ]
    return Search(plan, parts, judges(ends)[::2], seeds, settings)


def _first(choice: Choice, ranges: Mapping[str, Range]) -> Choice:
    """A choice with one seed, and with the beginning of a range in its place."""
    if choice.option in ranges:
        return choice._replace(values=[ranges[choice.option].ends[0]])
    return choice._replace(values=choice.values[:1]) if choice.plain == SEEDS else choice


def _settings(choice: Choice) -> list[Any]:
    return [content_of(f"--{choice.option}={value}") for value in choice.values]


def _check_same(file: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder's search is this one, which may have another number of trials.

    Raises:
        FewshotError: it is another; what differs is named.
    """
    if not file.exists():
        return
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        names = [*dict.fromkeys([*before.keys(), *settings])]
    except (OSError, ValueError, AttributeError) as error:
        raise FewshotError(
            f"{file} is no record of a search; set --folder to another folder"
        ) from error
    for name in names:
        was, now = before.get(name), settings.get(name)
        if was != json.loads(json.dumps(now, default=str)):
            raise FewshotError(
                f"the search in {file.parent} was begun {_told(name, was)}, not {_told(name, now)};"
                " give the same options, or set --folder to another folder"
            )


def _told(name: str, value: Any) -> str:
    if value is None:
        return f"without {name}"
    values = value if isinstance(value, list) else [value]
    texts = [str(v).removeprefix(f"{name}=") for v in values if not isinstance(v, dict)]
    return f"with {name} {' '.join(texts) or 'of other contents'}"


def run(search: Search, folder: Path, together: int, stop: Stop) -> tuple[list[Job], list[str]]:
    """Search, and show the trials.

    Returns:
        The runs of the best settings, still to be tested, and what is wrong, a line each.
    """
    with atomic_write(folder / RECORD) as file:
        json.dump(search.settings, file, indent=1, default=str)
    jobs: list[Job] = []
    faults = []
    for part, judge in zip(search.parts, search.judges, strict=True):
        name = f"{part.name} {part.key[:8]}"
        with closing(Study(folder, name, judge.mode, search.plan)) as study:
            prefix = f"{part.name}-" if len(search.parts) > 1 else ""
            Trials(Searched(part, study, judge, prefix), folder, together, stop).run()
            stop.leave()
            outcomes = study.outcomes()
            _show(outcomes, judge, part if prefix else None, search.plan, folder)
            of = f" of {part.name}" if prefix else ""
            if (left := search.plan.trials - len(study.ended())) > 0:
                faults.append(
                    f"{left} of {search.plan.trials} trials{of} are not done; the same command"
                    " tries them again"
                )
            if not outcomes or outcomes[0].state != "complete":
                faults.append(f"no trial{of} went to its end")
                continue
            jobs += _best(search, part, outcomes[0], prefix, folder)
    return jobs, faults


def _best(search: Search, part: Combination, best: Outcome, prefix: str, folder: Path) -> list[Job]:
    """The runs of a best setting: its trial, and the same with the other seeds."""
    name, args = f"{prefix}trial-{best.number}", placed(part.args, best.values)
    runs = [Combination(name, args, key_of(args))]
    for seed in search.seeds[1:]:
        other = placed(args, {SEEDS: seed})
        runs.append(Combination(f"{name}-{SEEDS}={seed}", other, key_of(other)))
    return [Job(each.name, each.args, folder) for each in named(runs, folder, write=True)]


def _show(
    outcomes: Sequence[Outcome], judge: Judge, part: Combination | None, plan: Plan, folder: Path
) -> None:
    """Print the table of trials, best first, and write it into the folder."""
    title = f"trials, by the best {judge.metric} of their validations"
    unit = f" ({judge.unit})" if judge.unit else ""
    options = [*plan.ranges]
    columns = {
        Column("#"): range(1, len(outcomes) + 1),
        Column("trial", is_text=True): [f"trial-{of.number}" for of in outcomes],
        **{
            Column(_leaf(option, options), is_text=bool(plan.ranges[option].words)): [
                shown(of.values.get(option)) for of in outcomes
            ]
            for option in options
        },
        Column(f"{judge.metric}{unit}", form="{:.4g}"): [
            None if of.best is None else scale_of(judge.unit) * of.best for of in outcomes
        ],
        Column("validations"): [of.validations for of in outcomes],
        Column("mark", is_text=True): [_mark(of) for of in outcomes],
    }
    sheet = Sheet(
        f"{part.name}: {title}" if part else title,
        [*columns],
        [*zip(*columns.values(), strict=True)],
    )
    text = io.StringIO(newline="")
    with redirect_stdout(text), redirect_stderr(io.StringIO()):
        sheet.write("csv")
    with atomic_write(folder / (f"trials-{part.name}.csv" if part else "trials.csv")) as file:
        file.write(text.getvalue())
    sheet.write("table")


def _leaf(option: str, options: Sequence[str]) -> str:
    """The last word of an option's name, or all of it where another ends alike."""
    leaves = [other.rpartition(".")[2] for other in options]
    leaf = option.rpartition(".")[2]
    return leaf if leaves.count(leaf) == 1 else option


def _mark(of: Outcome) -> str:
    state = "" if of.state == "complete" else of.state
    return ": ".join(filter(None, [state, of.why])) or state


def told(jobs: Sequence[Job]) -> list[str]:
    """The command lines that train and test the best settings, a line each."""
    return [
        f"the best setting, {job.name}: {shlex.join(['fewshot', 'fit', *job.args])}" for job in jobs
    ]
