"""`fewshot completion bash`: completion of commands, options, classes, configs and their arguments.

The shell asks the program itself, which answers from the source in a few tenths of a second.
"""

import os
import shlex
from collections.abc import Iterable, Iterator, Sequence

from fewshot.cli.arguments import TOP_LEVEL
from fewshot.cli.catalogue import networks
from fewshot.cli.class_help import WORDS, choices
from fewshot.cli.class_options import KINDS, options
from fewshot.cli.commands import COMMANDS, LIGHTNINGS
from fewshot.cli.configs import names as config_names
from fewshot.cli.definitions import arguments
from fewshot.cli.fit_options import trainer_arguments
from fewshot.cli.list import KINDS as LISTED
from fewshot.cli.options import Options
from fewshot.cli.sweep_plan import OWN as SWEEPS
from fewshot.errors import FewshotError, nearest

SHELLS = {
    "bash": "complete -o default -o nospace -C 'fewshot completion' fewshot",
    "zsh": (
        "autoload -U +X bashcompinit && bashcompinit\n"
        "complete -o default -o nospace -C 'fewshot completion' fewshot"
    ),
}
"""What each shell is to be told; both then run ``fewshot completion`` with `COMP_LINE` set."""


def completion(args: Sequence[str]) -> None:
    """Run the command."""
    if "COMP_LINE" in os.environ and "COMP_POINT" in os.environ:
        line = os.environ["COMP_LINE"].encode()[: int(os.environ["COMP_POINT"])].decode()
        print("\n".join(candidates(line)))
        return
    parser = Options(
        "completion",
        "Print what makes a shell complete this program's commands, options, classes and configs.",
        'put  eval "$(fewshot completion bash)"  into ~/.bashrc; for zsh likewise into ~/.zshrc',
    )
    parser.add_argument("shell", metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    shell = parser.read(args).shell
    if shell not in SHELLS:
        raise FewshotError(f"{shell!r} is no shell that can be told{nearest(shell, SHELLS)}")
    print(SHELLS[shell])


def candidates(line: str) -> list[str]:
    """What the last word of a command line that begins so may become."""
    try:
        words = shlex.split(line)
    except ValueError:  # an open quotation
        return []
    begun = words.pop() if words and not line[-1:].isspace() else ""
    given = words[1:]  # behind the program's name
    if not given:
        return _beginning(begun, [f"{name} " for name in COMMANDS])
    command, previous = given[0], given[-1]
    # readline takes `=` for the end of a word: what is behind it comes alone
    name, equals, value = begun.partition("=")
    if equals and name.startswith("--"):
        return _beginning(value, _values(name.removeprefix("--"), given))
    if command in LIGHTNINGS or command in ("predict", "prepare", "sweep"):
        if previous.startswith("--") and "=" not in previous and not begun.startswith("--"):
            return _beginning(begun, [f"{v} " for v in _values(previous[2:], given)])
        return _beginning(begun, _options(begun, given))
    if command == "list":
        return _beginning(begun, [f"{kind} " for kind in LISTED])
    return []


def _beginning(begun: str, words: Iterable[str]) -> list[str]:
    return sorted(word for word in words if word.startswith(begun))


def _options(begun: str, given: Sequence[str]) -> Iterator[str]:
    yield from (f"--{name} " for name in (*TOP_LEVEL, "print_config", "help") if name != "trainer")
    if given[0] == "sweep":
        yield from (f"--{name} " for name in SWEEPS if name != "help")
    yield "--trainer."
    if begun.startswith("--trainer."):
        yield from (f"--trainer.{name} " for name, _ in trainer_arguments())
    for kind, cls in _named(given).items():
        yield from (f"--{kind}.{each.name} " for each in arguments(cls))
    yield from (f"--{kind}.help " for kind in KINDS)


def _named(given: Sequence[str]) -> dict[str, str]:
    """The classes that the command line names so far."""
    return {kind: value for kind, value in options(given) if kind in KINDS and value}


def _values(option: str, given: Sequence[str]) -> Iterator[str]:
    """What may stand behind an option."""
    kind, _, argument = option.rpartition(".")
    if option in ("config", "c"):
        yield from config_names()
    elif option in KINDS or (argument == "help" and kind in KINDS):
        yield from (entry.name for entry in KINDS[kind if argument == "help" else option]())
        if option == "model.backbone":
            yield from (name for entry in networks() for name in entry.short_names)
    elif kind in KINDS:
        for each in arguments(_named(given).get(kind, "")):
            if each.name == argument:
                words = choices(each.owner.module, each.annotation)
                yield from (w for w in words if " " not in w and w not in WORDS.values())
