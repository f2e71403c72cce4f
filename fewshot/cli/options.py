"""Options of a command, whose errors are one line each."""

import argparse
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import fewshot
from fewshot.errors import FewshotError, nearest

if TYPE_CHECKING:
    from fewshot.deployment.predictor import TrainedLearner


class Options(argparse.ArgumentParser):
    """An `ArgumentParser` that raises `FewshotError` where the options are wrong."""

    def __init__(self, command: str, description: str, epilog: str | None = None) -> None:
        super().__init__(
            prog=f"fewshot {command}",
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,  # no "(default: None)" in the help
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def read(self, args: Sequence[str]) -> argparse.Namespace:
        """The options that `args` set.

        Raises:
            FewshotError: one is unknown, missing or wrong.
        """
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for option in (arg.partition("=")[0] for arg in args if arg.startswith("--")):
            if option not in known:  # told before what is missing, which may be its misspelling
                raise FewshotError(f"unknown option {option!r}{nearest(option, known)}")
        arguments, rest = self.parse_known_args(args)
        if rest:
            raise FewshotError(f"{rest[0]!r} belongs to no option; choose from {', '.join(known)}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise what `argparse` would print."""
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing:
            raise FewshotError(
                f"{missing.group(1)} is missing; `{self.prog} --help` says what it is"
            )
        told = message.removeprefix("argument ")
        remedy = "" if "; " in told else f"; `{self.prog} --help` says what it takes"
        raise FewshotError(f"{told}{remedy}")


def add_checkpoint(parser: Options) -> None:
    """Add the options that say which trained learner is meant."""
    parser.add_argument(
        "--ckpt_path", required=True, help="the checkpoint that `fewshot fit` wrote"
    )
    parser.add_argument(
        "--learner",
        metavar="MODULE.CLASS",
        help="import path of the learner's class, where it is one of your own",
    )
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        metavar="MODULE",
        help=(
            "a module of your own that has a backbone or another class which the checkpoint names;"
            " nothing is imported because a checkpoint names it. May be given several times"
        ),
    )


def loaded(arguments: argparse.Namespace, device: str) -> "TrainedLearner":
    """The trained learner that these options mean."""
    from fewshot.cli.named import import_named, imported  # here: seconds

    for module in getattr(arguments, "modules", ()):
        import_named(module)
    own = imported("model", arguments.learner) if "learner" in arguments else None
    return fewshot.load(arguments.ckpt_path, device, own)


def share(text: str) -> float:
    """A number in 0 ... 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no probability; give a number from 0 to 1")
    return value
