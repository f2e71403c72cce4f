"""The runs of a sweep: every combination of the values that options are given, each with a name."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.cli.aliases import KINDS, meant, unknown
from fewshot.cli.arguments import TOP_LEVEL, check_configs, check_options, read_config
from fewshot.cli.class_options import check_class_options
from fewshot.cli.configs import locate
from fewshot.errors import FewshotError, nearest

SEARCH = ("search", "trials", "seed", "pruner")
CLUSTER = ("launcher", "partition", "time", "gpus", "cpus", "memory", "slurm")
OWN = ("jobs", "folder", "dry_run", "set", "help", *SEARCH, *CLUSTER)
"""Options of the sweep; every other is one of `fit`."""
NOT_HERE = {
    "trainer.default_root_dir": "set --folder in its place",
    "run_name": "runs are called by what they differ in; leave it out",
    "ckpt_path": "the same sweep goes on with what was cut off; leave it out",
    "test_after_fit": "runs are compared by their tests; leave it out",
    "print_config": "set --dry_run in its place",
}
SEVERAL_TIMES = re.compile(r"config|trainer\.(callbacks|logger)\b.*")
"""Options that `fit` takes more than once: later configs come on top of earlier ones."""
CLASSES = ("model", "data")
OPTION = re.compile(
    r"(?:seed_everything|(?:model|data|trainer|checkpoint)(?:\.[a-z_][a-z0-9_]*)+)(?:=|$)"
)
"""What is taken for the next option of ``--set``, not for a value of the one before."""
LONGEST = 120  # characters of a name


class Choice(NamedTuple):
    """An option of `fit` and the values that it is tried with."""

    option: str
    """Its name, without dashes."""
    values: Sequence[str]

    @property
    def plain(self) -> str:
        """The name without the words that only the parser needs."""
        return re.sub(r"\.(class_path|init_args)\b", "", self.option)


class Combination(NamedTuple):
    """A run of the sweep."""

    name: str
    args: tuple[str, ...]
    key: str
    """What is the same for the same arguments and the same contents of the configs."""


def groups(args: Sequence[str]) -> tuple[list[str], list[Choice]]:
    """The options of the sweep itself, and those of `fit` with their values.

    Raises:
        FewshotError: an option has no value.
    """
    own: list[str] = []
    choices: list[Choice] = []
    for words in _split(args):
        option, equals, inline = words[0].partition("=")
        name = {"-c": "config", "-h": "help"}.get(option, option[2:])
        values = [inline, *words[1:]] if equals else list(words[1:])
        if name in OWN and name != "set":
            own += words
            continue
        if name == "set":
            if not values:
                raise FewshotError(
                    "--set names no option; give one and its values, such as --set model.inner_lr"
                    " 0.1 0.4"
                )
            choices += _set(values)
            continue
        choices.append(_choice(name, values))
    return own, choices


def _set(words: Sequence[str]) -> Iterator[Choice]:
    """What follows ``--set``: options, each with its values."""
    parts: list[list[str]] = []
    for word in words:
        if not parts or (len(parts[-1]) > 1 and OPTION.match(word)):
            name, equals, inline = word.removeprefix("--").partition("=")
            parts.append([name, inline] if equals else [name])
        else:
            parts[-1].append(word)
    for name, *values in parts:
        yield _choice(name, values)


def _choice(option: str, values: Sequence[str]) -> Choice:
    if not values:
        raise FewshotError(f"--{option} has no value; give one or several")
    return Choice(option, values)


def _split(args: Sequence[str]) -> Iterator[list[str]]:
    """The words of each option: its name and what follows, down to the next."""
    words: list[str] = []
    for arg in args:
        if arg.startswith("--") or re.match(r"-[ch]\b", arg):
            if words:
                yield words
            words = [arg]
        elif words:
            words.append(arg)
        else:
            raise FewshotError(f"{arg!r} belongs to no option; `fewshot sweep --help` says which")
    if words:
        yield words


def combinations(choices: Sequence[Choice], one_will_do: bool = False) -> list[Combination]:
    """Every combination of the values, those of the last option changing first.

    Args:
        choices: the options and their values.
        one_will_do: whether a single combination is a sweep too, as one that is searched in.

    Raises:
        FewshotError: there are none, or something is wrong with them that is known at once.
    """
    _check_names(choices)
    choices = [meaning_of(choice) for choice in choices]
    for choice in choices:
        twice = [value for value, number in Counter(choice.values).items() if number > 1]
        if twice:
            raise FewshotError(f"--{choice.option} has the value {twice[0]} twice; give it once")
    several = [choice for choice in choices if len(choice.values) > 1]
    if not several and not one_will_do:
        raise FewshotError(
            "no option has several values, so there is nothing to sweep over; give some, such as"
            " --seed_everything 0 1 2, or use `fewshot fit`"
        )
    given = {choice.plain for choice in choices}
    missing = [f"--{kind}" for kind in CLASSES if kind not in given and "config" not in given]
    if missing:
        raise FewshotError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing; give a config"
            " (--config FILE) or a class each"
        )
    plan = []
    for values in itertools.product(*(choice.values for choice in choices)):
        said = [f"--{c.option}={v}" for c, v in zip(choices, values, strict=True)]
        args = tuple(sorted(said, key=_place))
        check_class_options(args)
        plan.append(Combination(_name(choices, values), args, key_of(said)))
    return plan


def _place(arg: str) -> int:
    """Where an option stands: what names a class comes before the arguments of that class."""
    option = arg[2:].partition("=")[0].removesuffix(".class_path")
    if option.partition(".")[0] not in CLASSES or option in CLASSES:
        return 0
    return 1 if option == "model.backbone" else 2


def _check_names(choices: Sequence[Choice]) -> None:
    """Check the names of the options.

    Raises:
        FewshotError: one is unknown, given twice, or not for a sweep.
    """
    known = [*TOP_LEVEL, *OWN]
    for choice in choices:
        if choice.plain in NOT_HERE:
            raise FewshotError(f"--{choice.option} is not for a sweep: {NOT_HERE[choice.plain]}")
        if choice.plain.rpartition(".")[2] == "help":
            raise FewshotError(
                f"--{choice.option} is not for a sweep; ask `fewshot fit --{choice.option}"
                f" {choice.values[0]}`"
            )
        if "." not in choice.option and choice.option not in known:
            raise FewshotError(f"unknown option {choice.option!r}{nearest(choice.option, known)}")
        check_options("fit", [f"--{choice.option}"])
    for option, number in Counter(choice.plain for choice in choices).items():
        if number > 1 and not SEVERAL_TIMES.fullmatch(option.removesuffix("+")):
            raise FewshotError(f"--{option} is given {number} times; give all its values at once")


def meaning_of(choice: Choice) -> Choice:
    """A choice with the names of configs and classes that its values mean.

    Raises:
        FewshotError: what is named is unknown, or no config.
    """
    if choice.plain == "config":
        found = [locate(value) for value in choice.values]
        check_configs([f"--config={value}" for value in found])
        return choice._replace(values=found)
    kind = choice.plain.rpartition(".")[2]
    if choice.plain.partition(".")[0] not in CLASSES or kind not in KINDS:
        return choice
    found = [meant(kind, value) for value in choice.values]
    wrong = [_unknown(kind, value) for value in found] if kind in CLASSES else []
    if any(wrong):
        raise FewshotError("; ".join(filter(None, wrong)))
    return choice._replace(values=found)


def _unknown(kind: str, word: str) -> str:
    """What is said of a class that does not exist; empty where it does, or may."""
    names = [entry.name for entry in KINDS[kind]()]
    if word in names or not re.fullmatch(r"[\w+ -]+", word):  # a path, or a class with arguments
        return ""
    return unknown(kind, word)


def key_of(args: Sequence[str]) -> str:
    """What is the same for the same arguments and the same contents of the configs."""
    said = [content_of(arg) for arg in args]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def content_of(arg: str) -> Any:
    """An argument; of a config what it holds, which may change under the same name."""
    option, _, value = arg.partition("=")
    is_config = option == "--config" and Path(value).is_file()
    return read_config(Path(value)) if is_config else arg


def _name(choices: Sequence[Choice], values: Sequence[str]) -> str:
    """What a run is called: the values that the runs differ in."""
    varied = [(c, v) for c, v in zip(choices, values, strict=True) if len(c.values) > 1]
    leaves = Counter(choice.plain.rpartition(".")[2] for choice, _ in varied)
    parts = []
    for choice, value in varied:
        leaf = choice.plain.rpartition(".")[2]
        if choice.plain == "config":
            parts.append(Path(value).stem)
        elif leaf in KINDS and re.fullmatch(r"[\w.+ -]+", value):
            parts.append(value.rpartition(".")[2])
        else:
            parts.append(f"{leaf if leaves[leaf] == 1 else choice.plain}={value}")
    return re.sub(r"[^\w.+=-]+", "_", "-".join(parts)).lstrip(".+=-")[:LONGEST] or "run"
