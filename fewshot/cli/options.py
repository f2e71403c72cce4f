"""Options of a command, whose errors are one line each."""

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, NoReturn

import fewshot
from fewshot.errors import FewshotError, nearest

if TYPE_CHECKING:
    from fewshot.deployment.predictor import TrainedLearner


WIDEST = 100


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
        self.needed: list[tuple[str, ...]] = []
        """Options that must be given; of each entry one."""
        self.families: tuple[str, ...] = ()
        """Options that are followed by a dot and the name of an argument."""

    def read(self, args: Sequence[str]) -> argparse.Namespace:
        """The options that `args` set.

        Those of `self.families`, such as ``--backbone.resize 112``, are in dicts of their values'
        texts: ``arguments.of["backbone"]``.

        Raises:
            FewshotError: one is unknown, missing or wrong.
        """
        args, of = self._without_families(args)
        known = [option for option in self._option_string_actions if option.startswith("--")]
        for option in (arg.partition("=")[0] for arg in args if arg.startswith("--")):
            if option not in known:  # told before what is missing, which may be its misspelling
                raise FewshotError(f"unknown option {option!r}{nearest(option, known)}")
        arguments, rest = self.parse_known_args(args)
        if rest:
            raise FewshotError(f"{rest[0]!r} belongs to no option; choose from {', '.join(known)}")
        given = {f"--{name}" for name in vars(arguments)}
        missing = [" or ".join(options) for options in self.needed if not given & {*options}]
        if missing:
            self.error(f"the following arguments are required: {', '.join(missing)}")
        arguments.of = of
        return arguments

    def _without_families(self, args: Sequence[str]) -> tuple[list[str], dict[str, dict[str, str]]]:
        """The arguments without ``--NAME.ARGUMENT VALUE`` of `self.families`, and these."""
        rest: list[str] = []
        of: dict[str, dict[str, str]] = {family: {} for family in self.families}
        words = iter(args)
        for word in words:
            option, equals, value = word.partition("=")
            family, dot, name = option.removeprefix("--").partition(".")
            if not option.startswith("--") or not dot or family not in of:
                rest.append(word)
                continue
            text = value if equals else next(words, None)
            if text is None or not name:
                raise FewshotError(f"{option} has no value; give one, such as {option} 1")
            of[family][name] = text
        return rest, of

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
    """Add the options that say which trained learner, or which pre-trained network, is meant."""
    parser.needed.append(("--ckpt_path", "--backbone"))
    parser.families = ("backbone", "learner")
    parser.add_argument("--ckpt_path", help="the checkpoint that `fewshot fit` wrote")
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        help=(
            "in place of a checkpoint: a pre-trained network (`fewshot list backbones`;"
            " torchvision's, timm's and Hugging Face's names too), which nothing trains further;"
            " --backbone.ARGUMENT sets one of its arguments, such as --backbone.resize 112"
        ),
    )
    parser.add_argument(
        "--learner",
        metavar="NAME",
        help=(
            "with --backbone: the learner that tells the classes apart by its features (class means"
            " by cosine if left out); --learner.ARGUMENT sets one of its arguments. With"
            " --ckpt_path: the import path MODULE.CLASS of the learner, where it is your own"
        ),
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
    """The trained learner that these options mean, or the pre-trained network."""
    if "backbone" in arguments and "ckpt_path" in arguments:
        raise FewshotError(
            "--ckpt_path and --backbone both say which network is meant; leave one of them out"
        )
    of = [f"--{name}.{key}" for name, given in arguments.of.items() for key in given]
    if "backbone" not in arguments and of:
        raise FewshotError(
            f"{of[0]} is of a network that --backbone names, and a checkpoint holds its own"
            " arguments; leave it out"
        )
    from fewshot.cli.named import import_named, imported  # here: seconds

    for module in getattr(arguments, "modules", ()):
        import_named(module)
    own: Any = getattr(arguments, "learner", None)
    if own is not None and ("." in own or "ckpt_path" in arguments):
        own = imported("model", own)
    if "ckpt_path" in arguments:
        return fewshot.load(arguments.ckpt_path, device, own)
    return fewshot.pretrained(
        arguments.backbone,
        own,
        device,
        kind=_checked_kind(arguments),
        backbone_args=_values(arguments.of["backbone"]),
        learner_args=_values(arguments.of["learner"]),
    )


def _checked_kind(arguments: argparse.Namespace) -> Any:
    """What the support holds, images or texts; None where there is none, or it does not tell.

    Raises:
        FewshotError: the network reads the other.
    """
    if "support" not in arguments:
        return None
    from fewshot.backbones.named import named
    from fewshot.datasets.reading.kinds import check_kind, kind_of

    support = Path(arguments.support)
    kind = kind_of(support)
    check_kind(support, named(arguments.backbone, kind).kind)  # before its weights are loaded
    return kind


def _values(texts: dict[str, str]) -> dict[str, Any]:
    """Values as a config has them: numbers, booleans, null, lists, texts."""
    import yaml

    try:
        return {name: yaml.safe_load(text) for name, text in texts.items()}
    except yaml.YAMLError as error:
        told = ", ".join(f"{name} {text}" for name, text in texts.items())
        raise FewshotError(f"{told} has a value that is no YAML; quote it") from error


def help_width() -> int:
    """Columns of a help text: the terminal's, or as many as can still be read."""
    return min(get_terminal_size().columns, WIDEST)


def share(text: str) -> float:
    """A number in 0 ... 1, for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no probability; give a number from 0 to 1")
    return value


def yes_or_no(text: str) -> bool:
    """``true`` or ``false``, for argparse."""
    if text not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text} is neither; give true or false")
    return text == "true"
