"""`fewshot list`: every benchmark, learner and backbone."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from fewshot.cli.catalogue import benchmarks, learners, networks
from fewshot.cli.options import Options


def list_classes(args: Sequence[str]) -> None:
    """Run the command."""
    Options(
        "list", "Print every benchmark, learner and backbone, with what it is and its paper."
    ).read(args)
    console = Console()
    for title, entries in (
        ("Benchmarks (--data)", benchmarks()),
        ("Learners (--model)", learners()),
        ("Backbones (--model.backbone)", networks()),
    ):
        table = Table(title=title, title_justify="left", title_style="bold", expand=False)
        table.add_column("class", no_wrap=True)
        table.add_column("what it is")
        table.add_column("paper")
        for entry in entries:
            table.add_row(entry.name, entry.summary, entry.paper)
        console.print(table)
