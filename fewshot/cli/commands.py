"""The commands of the program: what each does, and where it is."""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

LIGHTNINGS = {
    "fit": "Train a learner on a benchmark, then test its best checkpoint.",
    "validate": "Evaluate a learner on the validation episodes.",
    "test": "Evaluate a learner on the test episodes.",
}
"""Subcommands of Lightning's; so is `predict` where its options name a benchmark."""


class Command(NamedTuple):
    """A command of our own, imported when it is run: most need what others do not."""

    place: str
    summary: str

    def __call__(self, args: Sequence[str]) -> Any:
        """Run it on what follows its name."""
        module, _, function = self.place.partition(":")
        return getattr(import_module(f"fewshot.cli.{module}"), function)(args)


OWN = {
    "predict": Command("predict:predict", "Name queries of your own, or those of a benchmark."),
    "prepare": Command("prepare:prepare", "Download, decode, check and cache a benchmark's data."),
    "export": Command("export:export", "Write a trained learner as .pt2 and ONNX programs."),
    "check": Command("check:check", "Look at a folder of your own images: what it allows."),
    "cache": Command("cache:cache", "List what is kept to be found again, and remove of it."),
    "list": Command("list:list_classes", "Print every benchmark, learner and backbone."),
    "compare": Command(
        "compare:compare", "Compare runs, episode by episode where they share them."
    ),
    "rank": Command("compare:rank", "Compare runs source by source."),
    "sweep": Command("sweep:sweep", "Fit every combination of values, then compare the runs."),
    "reproduce": Command("reproduce:reproduce", "Run what a figure was measured by, and judge it."),
    "completion": Command("completion:completion", "Have the shell complete what is typed."),
    "summary": Command("compare:summary", "Print mean and deviation over runs, such as seeds."),
}
COMMANDS = LIGHTNINGS | {name: command.summary for name, command in OWN.items()}
"""What each command does, by its name."""
