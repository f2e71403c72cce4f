"""The records of what was measured: `results/<benchmark>/<name>.yaml`, a file a measured row.

A record is a training with its tests, or a test of what needs no training. Figures are written in
their unit, so that 97.71 with the unit `%` is an accuracy of 0.9771.
"""

import functools
import math
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import fewshot
from fewshot.errors import FewshotError, nearest
from fewshot.tasks.intervals import t95

PLACEHOLDER = re.compile(r"\b(?:(?:[A-Z]+\d?_)?(?:DATA|BEST)|FOLD|MODEL)\b")
"""What stands in a command for a value of the machine; `BEST` is the last training's checkpoint."""
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
FIELDS = ("title", "learner", "benchmark", "protocol", "runs")
MORE = {"trained", "time", "machine", "versions", "commit", "date", "remark"}


class Paper(NamedTuple):
    """A published figure: one value or a range, and where it stands."""

    low: float
    high: float
    source: str
    ci95: float | None = None


class Figure(NamedTuple):
    """A measured mean with the half-width of its 95 % interval, where it has one."""

    metric: str
    mean: float
    ci95: float | None
    deviation: float | None
    """Over folds, where that was measured in place of an interval."""
    unit: str
    paper: Paper | None

    def interval(self, folds: int | None) -> float | None:
        """The half-width: as measured, or Student's t of the deviation over folds."""
        if self.deviation is None or folds is None:
            return self.ci95
        return t95(folds - 1) * self.deviation / math.sqrt(folds)

    def __str__(self) -> str:
        spread = self.ci95 if self.deviation is None else self.deviation
        return written(self.mean, spread, self.unit)


class Step(NamedTuple):
    """One of a record's commands, and the figures that it gave."""

    task: str
    command: str
    figures: tuple[Figure, ...]
    folds: int | None = None
    """How often it is run, with `FOLD` from 0; the figures are means over these runs."""

    @property
    def configs(self) -> list[str]:
        """The names of the configs that the command is given."""
        words = shlex.split(self.command)
        return [after for word, after in pairwise(words) if word == "--config"]


class Record(NamedTuple):
    """A measured row."""

    name: str
    title: str
    learner: str
    benchmark: str
    protocol: str
    steps: tuple[Step, ...]
    facts: Mapping[str, str]
    """The rest, of `MORE`: on which machine, when, of which commit, how long, a remark."""

    @property
    def needs(self) -> list[str]:
        """The placeholders whose values only the user knows."""
        found = {name for step in self.steps for name in PLACEHOLDER.findall(step.command)}
        return sorted(found - {"BEST", "FOLD"})


def folder() -> Path:
    """Where they are: within the installed package, or beside it in a checkout."""
    package = Path(fewshot.__file__).parent
    within = package / "results"
    return within if within.is_dir() else package.parent / "results"


def names() -> list[str]:
    """Their names, such as ``omniglot/maml_5way1shot``."""
    here = folder()
    files = here.glob("*/*.yaml")
    return sorted(path.relative_to(here).with_suffix("").as_posix() for path in files)


def find(name: str) -> Record:
    """The record of a name.

    Raises:
        FewshotError: there is none, or its file is none.
    """
    plain = name.removeprefix("results/").removesuffix(".yaml")
    if plain not in (known := names()):
        hint = nearest(plain, known)
        if "choose from" in hint:  # too many to list
            hint = "; `fewshot reproduce --list` shows them"
        raise FewshotError(f"there is no record {name!r}{hint}")
    return read(folder() / f"{plain}.yaml", plain)


def read_all() -> Iterator[Record]:
    """Every record, by name."""
    return map(find, names())


@functools.cache
def read(path: Path, name: str) -> Record:
    """A record from its file.

    Raises:
        FewshotError: it lacks something, or has what is not known.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
        if missing := {*FIELDS} - {*content}:
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        if odd := {*content} - {*FIELDS} - MORE:
            raise ValueError(f"nothing is known of {', '.join(sorted(odd))}")
        steps = tuple(_step(of) for of in content["runs"])
        facts = {key: str(content[key]) for key in content if key in MORE}
        title, learner, benchmark, protocol = (str(content[key]) for key in FIELDS[:-1])
        return Record(name, title, learner, benchmark, protocol, steps, facts)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise FewshotError(f"{path} is no record ({reason}); see another of that folder") from error


def _step(content: Mapping[str, Any]) -> Step:
    figures = tuple(_figure(metric, of) for metric, of in content["figures"].items())
    if not figures:
        raise ValueError("a run has no figures")
    return Step(content["task"], content["command"], figures, content.get("folds"))


def _figure(metric: str, content: Mapping[str, Any]) -> Figure:
    paper = content.get("paper")
    published = None
    if paper is not None:
        low = paper["low"] if "low" in paper else paper["mean"]
        high = paper["high"] if "high" in paper else paper["mean"]
        published = Paper(low, high, paper["source"], paper.get("ci95"))
    spread = (content.get("ci95"), content.get("deviation"))
    return Figure(metric, content["mean"], *spread, content.get("unit", ""), published)


def written(mean: float, spread: float | None, unit: str) -> str:
    """A figure with as many digits as it was measured with."""
    values: Sequence[float] = [mean] if spread is None else [mean, spread]
    digits = 2 if unit == "%" else max(len(str(float(v)).partition(".")[2]) for v in values)
    text = " ± ".join(f"{value:.{digits}f}" for value in values)
    return f"{text} {unit}".rstrip()
