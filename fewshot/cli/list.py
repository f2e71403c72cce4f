"""`fewshot list`: every benchmark, learner and backbone."""

from collections.abc import Sequence

from fewshot.cli.catalogue import print_catalogue
from fewshot.cli.options import Options


def list_classes(args: Sequence[str]) -> None:
    """Run the command."""
    Options(
        "list", "Print every benchmark, learner and backbone, with what it is and its paper."
    ).read(args)
    print_catalogue()
