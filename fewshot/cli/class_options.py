"""Options of a class, such as ``--model.inner_lr``, whose class the command line names."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

from fewshot.cli import aliases
from fewshot.cli.definitions import arguments
from fewshot.errors import FewshotError, nearest

KINDS = {
    option: aliases.KINDS[option.rpartition(".")[2]]
    for option in ("model", "model.backbone", "data")
}
"""The options that name a class, and those it may be."""
PARTS = ("class_path", "init_args", "dict_kwargs", "help")
"""What may follow such an option besides the class's arguments."""


def check_class_options(args: Sequence[str]) -> None:
    """Check options such as ``--model.inner_lr`` where the command line names the class.

    Raises:
        FewshotError: one of the package's classes has no such argument.
    """
    named: dict[str, str] = {}
    for option, value in options(args):
        key = option.removesuffix(".class_path")
        if key in KINDS:
            named[key] = value.removeprefix("fewshot.")
            continue
        owner = max((kind for kind in named if option.startswith(f"{kind}.")), key=len, default="")
        rest = option[len(owner) + 1 :].removeprefix("init_args.").partition(".")[0]
        if owner and (argument := rest.removesuffix("+")) not in PARTS:
            _check(owner, named[owner], argument)


def options(args: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The options of a command line, without their dashes, and the values of them."""
    for arg, after in pairwise([*args, ""]):
        if arg.startswith("--"):
            option, equals, inline = arg[2:].partition("=")
            yield option, inline if equals else after


def _check(kind: str, name: str, argument: str) -> None:
    if not any(entry.name == name for entry in KINDS[kind]()):
        return  # a short name, or a class of the user's own
    known = [each.name for each in arguments(name)]
    if argument not in known:
        raise FewshotError(f"{name} has no argument {argument!r}{nearest(argument, known)}")
