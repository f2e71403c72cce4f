"""`fewshot list`, `rank` and `summary`: what there is, and what tested runs have given."""

from collections.abc import Sequence

from fewshot.catalogue import print_catalogue
from fewshot.commands.options import Options
from fewshot.ranking import print_ranks
from fewshot.summary import print_summary


def list_classes(args: Sequence[str]) -> None:
    """Run `fewshot list`."""
    Options(
        "list", "Print every benchmark, learner and backbone, with what it is and its paper."
    ).read(args)
    print_catalogue()


def rank(args: Sequence[str]) -> None:
    """Run `fewshot rank`."""
    parser = Options(
        "rank", "Compare runs on each source that all were tested on, and by their average rank."
    )
    print_ranks(_runs(parser, args))


def summary(args: Sequence[str]) -> None:
    """Run `fewshot summary`."""
    parser = Options(
        "summary",
        "Print the mean and the deviation of each metric over runs, of several seeds or folds.",
    )
    print_summary(_runs(parser, args))


def _runs(parser: Options, args: Sequence[str]) -> list[str]:
    """The runs that `args` name."""
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="the folder of a tested run, or its results.json"
    )
    runs: list[str] = getattr(parser.read(args), "runs", [])
    return runs
