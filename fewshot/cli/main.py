"""The program `fewshot`: finds the command that is meant, and says in one line what is wrong.

Nothing heavy is imported here, so that what needs no torch answers at once.
"""

import argparse
import os
import select
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING

import fewshot
from fewshot.cli.aliases import canonical
from fewshot.cli.arguments import check_configs, check_options
from fewshot.cli.class_help import class_help
from fewshot.cli.class_options import check_class_options
from fewshot.cli.commands import COMMANDS, OWN
from fewshot.cli.configs import located
from fewshot.cli.fit_options import fit_help
from fewshot.cli.late_metrics import import_metrics_late
from fewshot.cli.messages import one_line
from fewshot.cli.threads import full_disk_in_threads
from fewshot.engine.allocation import keep_freed_memory
from fewshot.errors import FewshotError, nearest

if TYPE_CHECKING:
    from fewshot.cli.lightning import FewshotCLI

INTERRUPTED, UNREAD = 130, 141
"""The exit status after Ctrl-C, and where nobody reads on: 128 and the number of the signal."""
BENCHMARK_OPTIONS = (
    "--config",
    "-c",
    "--model",
    "--data",
    "--trainer",
    "--seed_everything",
    "--print_config",
)
"""What tells that `predict` means a benchmark's test episodes: options of Lightning's."""


def run(args: Sequence[str] | None = None) -> "FewshotCLI | None":
    """Run the command line `args` (None: the process's own); errors are raised.

    Returns:
        The learner, the benchmark and the trainer that have run (`model`, `datamodule`, `trainer`);
        None for a command that needs none of them.
    """
    given = sys.argv[1:] if args is None else list(args)
    if given[:1] in (["-h"], ["--help"], ["--version"]):
        program().parse_args(given[:1])
    given = canonical(given)
    if not given:
        raise FewshotError(f"no command given; choose from {', '.join(COMMANDS)}")
    name, rest = given[0], given[1:]
    if name not in COMMANDS and not name.startswith("-"):
        raise FewshotError(f"unknown command {name!r}{nearest(name, COMMANDS)}")
    import_metrics_late()
    # an option in front of the command is Lightning's too
    lightnings = on_benchmark(rest) if name == "predict" else name not in OWN
    if lightnings and (told := _help(name, rest)) is not None:
        print(told)
        raise SystemExit(0)
    if lightnings or name == "prepare":
        check_options(name, rest)
        check_class_options(rest)
        given = located(given)
        check_configs(given)
    if not lightnings:
        OWN[name](given[1:])
        return None
    from fewshot.cli import lightning  # here: it takes seconds

    return lightning.run(given)


def _help(command: str, args: Sequence[str]) -> str | None:
    """What one of Lightning's commands answers where it is asked for help; None where it is not."""
    return fit_help(command) if {"-h", "--help"} & {*args} else class_help(args)


def on_benchmark(args: Sequence[str]) -> bool:
    """Whether the arguments of `predict` mean a benchmark's test episodes.

    Raises:
        FewshotError: they mean both those and files of one's own.
    """
    names = [arg.partition("=")[0] for arg in args]
    benchmark = [name for name in names if name.split(".")[0] in BENCHMARK_OPTIONS]
    own = [name for name in names if name in ("--support", "--query", "--reject")]
    if benchmark and own:
        raise FewshotError(
            f"{own[0]} names files of your own, {benchmark[0]} a benchmark's test episodes; leave"
            " one of them out"
        )
    return bool(benchmark)


def program() -> argparse.ArgumentParser:
    """What `fewshot --help` and `fewshot --version` print."""
    width = max(map(len, COMMANDS))
    commands = "\n".join(f"  {name:{width}}  {does}" for name, does in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="fewshot",
        usage="fewshot COMMAND [options]",
        description=f"Few-shot learning and meta-learning.\n\ncommands:\n{commands}",
        epilog=(
            "`fewshot COMMAND --help` says what a command takes, `fewshot fit --model.help MAML`\n"
            "every argument of a class, and `fewshot list` which classes there are."
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fewshot {fewshot.__version__}")
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """The program `fewshot`: run, and turn an error into one line and exit status 2.

    Ctrl-C ends it with 130, as a shell's programs end.
    """
    keep_freed_memory()
    if isinstance(sys.stdout, TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: not every terminal has a ±
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)  # a user's own modules, as `python -m fewshot` finds them
    try:
        with full_disk_in_threads() as untold:
            try:
                run(args)
            except SystemExit:  # as help ends
                sys.stdout.flush()
                raise
        sys.stdout.flush()  # here a disk without room can still be told
        if untold:
            raise untold[0]
    except KeyboardInterrupt:
        print("fewshot: stopped by Ctrl-C", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning's own status is 1
            raise SystemExit(INTERRUPTED) from stop
        if isinstance(stop.__context__, BrokenPipeError):  # Rich's is 1
            raise SystemExit(UNREAD) from stop
        raise
    except Exception as error:  # whatever it is, a user sees no traceback that nobody asked for
        if os.environ.get("FEWSHOT_DEBUG"):
            raise
        if isinstance(error, BrokenPipeError) and _is_unread():
            _drop_output()
            return UNREAD
        print(f"fewshot: error: {one_line(error)}", file=sys.stderr)
        _drop_output()
        return 2
    return 0


def _is_unread() -> bool:
    """Whether nobody reads the standard output any more: `| head` has seen enough."""
    watched = select.poll()
    try:
        watched.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # it is no file
        return False
    return bool(watched.poll(0))


def _drop_output() -> None:
    """Forget what the standard output does not take: Python would try again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
