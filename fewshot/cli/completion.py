"""`fewshot completion bash`: completion of commands, options, classes, configs and their arguments.

The shell asks the program itself, which answers from the source in a few tenths of a second.
"""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from io import StringIO

from fewshot.cli import records
from fewshot.cli.aliases import canonical
from fewshot.cli.arguments import TOP_LEVEL
from fewshot.cli.catalogue import networks
from fewshot.cli.class_help import WORDS, choices
from fewshot.cli.class_options import KINDS, named_by
from fewshot.cli.commands import COMMANDS, LIGHTNINGS, OWN
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
    # here `=` ends no word, spaces follow by themselves, and files are named where nothing else is
    "fish": r"""function __fewshot_words
    set -l token (commandline -ct)
    set -l before (string match -r -- '^--[^=]*=' $token)
    set -l words (env COMP_LINE=(commandline -cp) COMP_POINT=100000 fewshot completion)
    test -n "$words"; or set words (__fish_complete_path (string replace -- "$before" '' $token))
    for word in (string trim -r -- $words)
        echo -- "$before$word"
    end
end
complete -c fewshot -f -a '(__fewshot_words)'""",
}
"""What each shell is to be told; all then run ``fewshot completion`` with `COMP_LINE` set."""


def completion(args: Sequence[str]) -> None:
    """Run the command."""
    if "COMP_LINE" in os.environ and "COMP_POINT" in os.environ:
        line = os.environ["COMP_LINE"].encode()[: int(os.environ["COMP_POINT"])].decode()
        print("\n".join(candidates(line)))
        return
    parser = Options(
        "completion",
        "Print what makes a shell complete this program's commands, options, classes and configs.",
        'put  eval "$(fewshot completion bash)"  into ~/.bashrc; for zsh likewise into ~/.zshrc;'
        "\nfor fish  fewshot completion fish | source  into ~/.config/fish/config.fish",
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
    given, previous = canonical(given), given[-1]
    command = given[0]
    is_run = command in LIGHTNINGS or command in ("predict", "prepare", "sweep")
    # readline takes `=` for the end of a word: what is behind it comes alone
    name, equals, value = begun.partition("=")
    known: Iterable[str]
    if equals and name.startswith("--"):
        known = _values(name[2:], given) if is_run else _choices(command, name)
        return _beginning(value, known)
    if previous.startswith("--") and "=" not in previous and not begun.startswith("--"):
        known = _values(previous[2:], given) if is_run else _choices(command, previous)
    else:
        known = _options(begun, given) if is_run else _of_own(command, begun)
    return _beginning(begun, (f"{word} " if word != "--trainer." else word for word in known))


def _choices(command: str, option: str) -> Sequence[str]:
    """What an option of a command of our own may be, by its help."""
    text = _help(command)
    found = re.search(rf"^  {re.escape(option)} \{{(.*?)\}}$", text, re.M)
    return found[1].split(",") if found else ()


def _of_own(command: str, begun: str) -> Iterable[str]:
    """What a command of our own takes: its options, by its help, or names."""
    if begun.startswith("-"):
        return re.findall(r"^  (?:-\w[^-]*, )?(--\w+)", _help(command), re.M)
    return NAMED[command]() if command in NAMED else ()


NAMED: Mapping[str, Callable[[], Iterable[str]]] = {
    "list": lambda: LISTED,
    "reproduce": records.names,
    "completion": lambda: SHELLS,
}
"""What stands behind a command where it is no option."""


def _help(command: str) -> str:
    """The help of a command of our own; of another none."""
    with redirect_stdout(StringIO()) as printed, suppress(SystemExit):
        if command in OWN:
            OWN[command](["--help"])
    return printed.getvalue()


def _beginning(begun: str, words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if word.startswith(begun)})


def _options(begun: str, given: Sequence[str]) -> Iterator[str]:
    yield from (f"--{name}" for name in (*TOP_LEVEL, "print_config", "help") if name != "trainer")
    if given[0] == "sweep":
        yield from (f"--{name}" for name in SWEEPS if name != "help")
    if given[0] == "predict":
        yield from _of_own("predict", "--")
    yield "--trainer."
    if begun.startswith("--trainer."):
        yield from (f"--trainer.{name}" for name, _ in trainer_arguments())
    for kind, cls in named_by(given).items():
        yield from (f"--{kind}.{each.name}" for each in arguments(cls))
    yield from (f"--{kind}.help" for kind in KINDS)


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
        for each in arguments(named_by(given).get(kind, "")):
            if each.name == argument:
                words = choices(each.owner.module, each.annotation)
                yield from (w for w in words if " " not in w and w not in WORDS.values())
