"""The options of a run that are ours, and the help of the commands that are Lightning's."""

import ast
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

from docstring_parser import DocstringStyle
from docstring_parser import parse as parse_docstring

from fewshot.cli.arguments import trainer_method
from fewshot.cli.commands import LIGHTNINGS
from fewshot.cli.options import help_width

EVERY = ("fit", "validate", "test", "predict")
COLUMN = 26  # of the names of most options


class RunOption(NamedTuple):
    """An option of a run that is neither the learner's, the benchmark's nor the Trainer's."""

    name: str
    kind: Any
    default: Any
    text: str
    commands: Sequence[str]
    """Those that it has a meaning for."""


OPTIONS = (
    RunOption(
        "test_after_fit",
        bool,
        True,
        "Test the best checkpoint when training is done.",
        ("fit",),
    ),
    RunOption(
        "episodes",
        str | None,
        None,
        "Test on the episodes of this file, not on drawn ones: short for `data.test_episodes`.",
        ("fit", "test", "predict"),
    ),
    RunOption(
        "run_name",
        str | None,
        None,
        "What the run's folder is called, followed by the next number; default: learner, benchmark,"
        " way and shot. `version` gives Lightning's `version_0`, `version_1`, ...",
        EVERY,
    ),
    RunOption(
        "freed_memory",
        Literal["all", "small"],
        "all",
        "What freed memory is kept for the next step (Linux): all, or blocks up to 32 MiB (small),"
        " which is slower on large batches and needs less memory.",
        EVERY,
    ),
)
WHAT = {
    "config": "A config of yours, or one of the package's by its name (`fewshot list configs`);"
    " what follows on the command line comes on top. May be given several times.",
    "model": "The learner (`fewshot list learners`). `--model.help NAME` shows its arguments, which"
    " are given as `--model.ARGUMENT VALUE`.",
    "model.backbone": "The network (`fewshot list backbones`), where the learner has one;"
    " `--model.backbone.help NAME` shows its arguments.",
    "data": "The benchmark (`fewshot list benchmarks`). `--data.help NAME` shows its arguments.",
}
HOW = {
    "seed_everything": "The seed of weights and of what training draws (default 0); the seed of the"
    " episodes is `--data.seed`.",
    "ckpt_path": "Go on from, or evaluate, this checkpoint: a file, a run's folder, `last` or"
    " `best`.",
    "print_config": "Print the config that this command line makes, and do nothing else.",
}
CHECKPOINT = {
    "checkpoint.every_n_steps": "Write `last.ckpt` after every so many meta-steps too.",
    "checkpoint.every_minutes": "Write it as soon as so many minutes have passed, too.",
}


def fit_help(command: str) -> str:
    """What `fewshot fit --help` prints, and that of the other commands of Lightning's."""
    width = help_width()
    run = {o.name: o.text for o in OPTIONS if command in o.commands}
    if command == "fit":
        run |= CHECKPOINT
    trainer = {f"trainer.{name}": text for name, text in trainer_arguments()}
    sections = (
        ("What to run:", "\n".join(_lines(WHAT, width))),
        ("How:", "\n".join(_lines(HOW | run, width))),
        (
            "Lightning's Trainer, whose manual says more:",
            "\n".join(_short_lines(trainer, width)),
        ),
    )
    summary = LIGHTNINGS[command]
    usage = f"usage: fewshot {command} [--config NAME] [--model NAME] [--data NAME] [options]"
    example = f"example: fewshot {command} --config glyphs/protonet_5way1shot"
    if command != "fit":
        example += " --ckpt_path best"
    return "\n\n".join([usage, summary, example, *(f"{a}\n{b}" for a, b in sections)])


def trainer_arguments() -> Iterator[tuple[str, str]]:
    """The arguments of Lightning's Trainer and the first sentence on each, by its source."""
    function = trainer_method("__init__")
    if function is None:
        return
    docstring = ast.get_docstring(function) or ""
    texts = {
        parameter.arg_name: " ".join((parameter.description or "").split())
        for parameter in parse_docstring(docstring, DocstringStyle.GOOGLE).params
    }
    for argument in function.args.kwonlyargs:
        yield argument.arg, re.split(r"(?<=[.!?]) ", texts.get(argument.arg, ""))[0]


def _lines(options: dict[str, str], width: int) -> Iterator[str]:
    for name, text in options.items():
        yield f"  --{name}"
        yield from textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _short_lines(options: dict[str, str], width: int) -> Iterator[str]:
    for name, text in options.items():
        head = f"  {f'--{name}':{COLUMN}} "
        yield head + textwrap.shorten(text.replace("`", ""), width - len(head), placeholder=" ...")
