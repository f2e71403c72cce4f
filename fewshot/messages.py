"""Error messages of the command line: one line each, with the nearest right word where one is misspelt.

jsonargparse reports a wrong argument with every alternative that it has tried. What a user needs of it is the
innermost complaint; the patterns below pick it out. What matches none of them is shown as it is, in one line.
"""

import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator

import lightning as L
import torch

from fewshot.catalogue import benchmarks, find, learners, networks
from fewshot.errors import FewshotError
from fewshot.hyperparameters import parameter_names

TOP_LEVEL = (
    "config",
    "seed_everything",
    "trainer",
    "model",
    "data",
    "ckpt_path",
    "weights_only",
    "test_after_fit",
)


def one_line(error: BaseException) -> str:
    """The message of `error` in one line: that of the `FewshotError` behind it, or what the parser meant to say."""
    for cause in _chain(error):
        if isinstance(cause, FewshotError):
            return _joined(str(cause))
    text = _joined(str(error))
    for pattern, say in PATTERNS:
        found = list(re.finditer(pattern, text))
        if found:
            return say(found[-1])
    return text


def nearest(word: str, words: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the most similar of `words`, or all of them where none is similar."""
    words = sorted(set(words))
    folded = {other.lower(): other for other in words}
    close = difflib.get_close_matches(word.lower(), folded, 1, cutoff=0.5)
    return f"; did you mean {folded[close[0]]!r}?" if close else f"; choose from {', '.join(words)}"


def _joined(text: str) -> str:
    return " ".join(text.split())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _wrong_option(match: re.Match[str]) -> str:
    path, option = match.groups()
    name = path.rpartition(".")[2]
    entry = find(path)
    return f"{name} has no argument {option!r}" + (nearest(option, parameter_names(entry)) if entry else "")


def _wrong_class(match: re.Match[str]) -> str:
    name = match.group(1)
    keys = re.findall(r'Parser key "(\w+)"', match.string[: match.start()])
    names = CHOICES.get(keys[-1] if keys else "", list)()
    return f"{name!r} is no known class" + (nearest(name, names) if names else "; give its full import path")


CHOICES: dict[str, Callable[[], list[str]]] = {
    "data": lambda: [entry.name for entry in benchmarks()],
    "model": lambda: [entry.name for entry in learners()],
    "backbone": lambda: [entry.name for entry in networks()],
    "optimizer": lambda: list(torch.optim.__all__),
    "lr_scheduler": lambda: list(torch.optim.lr_scheduler.__all__),
}
"""What may stand under each key that names a class."""


def _wrong_key(match: re.Match[str]) -> str:
    key = match.group(1)
    if key.startswith("trainer."):
        names: Iterable[str] = (f"trainer.{name}" for name in inspect.signature(L.Trainer).parameters)
    else:
        names = TOP_LEVEL
    return f"unknown option {key!r}{nearest(key, names)}"


PATTERNS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"class_path '([\w.]+)': Option '([\w.]+)' is not accepted", _wrong_option),
    (r"Expected a dot import path string: (\w+)", _wrong_class),
    (r"Multiple subclasses with name (\w+)\.", _wrong_class),
    (r"does not accept (?:option|key) '([\w.]+)'", _wrong_key),
    (r"unrecognized arguments: --([\w.]+)", _wrong_key),
    (
        r"class_path '(?:[\w]+\.)*(\w+)': the following arguments are required: ([\w., ]+?) -",
        lambda m: f"{m.group(1)} needs the argument {m.group(2)}; set it in the config or on the command line",
    ),
    (
        r"the following arguments are required: (?:\w+\.)?(\w+)$",
        lambda m: f"--{m.group(1)} is missing; name a config (--config FILE) or a class (see `fewshot list`)",
    ),
    (
        r"""Parser key "([\w.]+)": (Expected a [^"]*?)(?: - Expected a <class 'NoneType'>.*)?$""",
        lambda m: f"{m.group(1)}: {m.group(2)}",
    ),
    (
        r"invalid choice: '(\w+)' \(choose from",
        lambda m: f"unknown command {m.group(1)!r}" + nearest(m.group(1), COMMANDS),
    ),
    (r'expected "subcommand" to be one of', lambda m: f"no command given; choose from {', '.join(COMMANDS)}"),
    (
        r"File does not exist: '([^']+)'",
        lambda m: f"the file {m.group(1)} does not exist; give an existing path",
    ),
)
COMMANDS = ("fit", "validate", "test", "predict", "list")
