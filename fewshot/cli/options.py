"""Options of a command, whose errors are one line each."""

import argparse
import re
from collections.abc import Sequence
from typing import NoReturn

from fewshot.errors import FewshotError, nearest


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
        found, rest = self.parse_known_args(args)
        if rest:
            raise FewshotError(f"{rest[0]!r} belongs to no option; choose from {', '.join(known)}")
        return found

    def error(self, message: str) -> NoReturn:
        """Raise what `argparse` would print."""
        missing = re.fullmatch(r"the following arguments are required: (.*)", message)
        if missing:
            raise FewshotError(
                f"{missing.group(1)} is missing; `{self.prog} --help` says what it is"
            )
        raise FewshotError(message.removeprefix("argument "))


def share(text: str) -> float:
    """A number in 0 ... 1, for argparse."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no probability; give a number from 0 to 1")
    return value
