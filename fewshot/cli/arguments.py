"""What is known to be wrong with a command line before anything heavy is imported.

What cannot be judged from here, such as the arguments of a class, the parser judges.
"""

import ast
import functools
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from fewshot.cli.commands import COMMANDS
from fewshot.errors import FewshotError, nearest

TOP_LEVEL = (
    "config",
    "seed_everything",
    "trainer",
    "model",
    "data",
    "ckpt_path",
    "weights_only",
    "test_after_fit",
    "episodes",
    "run_name",
    "freed_memory",
    "checkpoint",
)
"""The options of `fit`; other commands take them all, so that they take its config."""

SHORT = {"-c": "config"}
MOST_VALUES = 100_000
"""Of a config, whatever they are; the largest that the package ships has a hundred."""
DEEP = 50  # brackets of a value that may be nested too deep to be read


def options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of a command line, without their dashes, and what is behind each.

    >>> [*options(["fit", "-c", "a.yaml", "--model=MAML", "--model.help"])]
    [('config', 'a.yaml'), ('model', 'MAML'), ('model.help', '')]
    """
    for arg, after in pairwise([*args, ""]):
        option, equals, inline = arg.partition("=")
        if option.startswith("--") or option == "-c":
            yield SHORT.get(option, option[2:]), inline if equals else after


def check_options(command: str, args: Sequence[str]) -> None:
    """Check the names of the options in `args`, what follows `command`.

    Raises:
        FewshotError: there is no such option.
    """
    for option in _options(args):
        _check_option(command, option)


def _options(args: Sequence[str]) -> Iterator[str]:
    for arg in args:
        if arg == "--":
            return
        name = arg.partition("=")[0]
        if name.startswith("--") and " " not in name:  # with a blank it is a value
            yield name[2:].removesuffix("+")


def _check_option(command: str, option: str) -> None:
    top, _, rest = option.partition(".")
    if top == "trainer" and rest:
        known = trainer_parameters("__init__")
        if known and rest.partition(".")[0] not in known:
            raise FewshotError(unknown_option(option))
    elif top not in (*TOP_LEVEL, "help", "print_config"):
        # what else Lightning asks for, such as `verbose`
        known = trainer_parameters(command) if command != "prepare" else TOP_LEVEL
        if known and top not in known:
            raise FewshotError(unknown_option(option))


def unknown_option(option: str) -> str:
    """The message for an option that does not exist, with the nearest that does."""
    top, _, rest = option.partition(".")
    if top == "trainer":
        names = (f"trainer.{name}" for name in trainer_parameters("__init__"))
        return f"unknown option {option!r}{nearest(option, names)}"
    if top in TOP_LEVEL and rest:
        return (
            f"unknown option {option!r}; say first which class: --{top} NAME (see `fewshot list`)"
        )
    return f"unknown option {top!r}{nearest(top, TOP_LEVEL)}"


@functools.cache
def trainer_parameters(method: str) -> tuple[str, ...]:
    """The parameters of a method of Lightning's Trainer, by its source; () where it is not found.

    To import the Trainer takes seconds.
    """
    function = trainer_method(method)
    if function is None:
        return ()
    arguments = function.args
    return tuple(a.arg for a in (*arguments.args, *arguments.kwonlyargs) if a.arg != "self")


@functools.cache
def trainer_method(name: str) -> ast.FunctionDef | None:
    """A method of Lightning's Trainer, as its source has it; None where it is not found."""
    package = find_spec("lightning")
    for folder in (package and package.submodule_search_locations) or ():
        file = Path(folder, "pytorch/trainer/trainer.py")
        source = file.read_text(encoding="utf-8") if file.is_file() else ""
        head = rf"^    def {name}\(.*?\) -> [^\n]*:\n(?:        r?\"\"\".*?\"\"\")?"
        if match := re.search(head, source, re.MULTILINE | re.DOTALL):
            text = textwrap.dedent(match.group().rstrip("\n"))
            (function,) = ast.parse(f"{text}\n    ...").body
            assert isinstance(function, ast.FunctionDef)
            return function
    return None


def check_configs(args: Sequence[str]) -> None:
    """Check that every config file named in `args` is YAML: jsonargparse does not name the file.

    And that no value, which may be YAML too, grows beyond measure by its aliases.

    Raises:
        FewshotError: naming the file and the line.
    """
    for name, value in options(args):
        if name != "config":
            _check_value(f"--{name}", value)
        elif Path(value).is_file():
            read_config(Path(value))


def _check_value(option: str, value: str) -> None:
    """The same of an option's value: YAML itself, or the name of a file of it."""
    if value.endswith((".yaml", ".yml", ".json")) and Path(value).is_file():
        read_config(Path(value))
    elif "*" in value or value.count("[") + value.count("{") > DEEP:
        import yaml  # here: most commands read none

        with suppress(yaml.YAMLError):  # the parser says so
            load_yaml(value, option)


def load_yaml(text: str, where: str) -> Any:
    """What YAML holds, once it is known that its aliases do not make it endless, or nearly so.

    Aliases of aliases double what they name with each line: a few lines make more values than a
    machine can hold, here or in what reads the values on.

    Raises:
        FewshotError: it has more than `MOST_VALUES` values when written out, or is nested too deep.
        yaml.YAMLError: it is no YAML.
    """
    import yaml  # here: most commands read none

    try:
        if "*" in text and _values(yaml.compose(text, yaml.SafeLoader), {}) > MOST_VALUES:
            raise FewshotError(
                f"{where} holds more than {MOST_VALUES} values when its aliases (*name) are written"
                " out; take out aliases of aliases"
            )
        return yaml.safe_load(text)
    except RecursionError as error:
        raise FewshotError(f"{where} is nested too deep; mend it") from error


def _values(node: Any, known: dict[int, float]) -> float:
    """How many values a node stands for; what an alias names is counted wherever it is named."""
    if isinstance(node, tuple):  # a key and its value
        return _values(node[0], known) + _values(node[1], known)
    if not isinstance(items := getattr(node, "value", None), list):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")  # what holds itself is endless
        known[id(node)] = 1 + sum(_values(item, known) for item in items)
    return known[id(node)]


def read_config(path: Path) -> dict[str, Any]:
    """What a config file holds.

    Raises:
        FewshotError: it is no YAML, or no mapping.
    """
    import yaml  # here: most commands read none

    try:
        content = load_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise FewshotError(
            f"{path} is no text file ({error.reason}); give a YAML config"
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise FewshotError(
            f"{path}{where}: this is no YAML ({getattr(error, 'problem', error)}); mend it"
        ) from error
    if not isinstance(content, dict):
        raise FewshotError(
            f"{path} is no config; give a YAML file with keys such as `model:`, `data:` and"
            " `trainer:`"
        )
    for part in (content, *(content.get(command) for command in COMMANDS)):
        for key in ("trainer", "checkpoint"):
            if isinstance(part, dict) and not isinstance(part.get(key, {}), dict):
                raise FewshotError(
                    f"{path}: {key} is {part[key]!r}; give a mapping of its arguments"
                )
    return content
