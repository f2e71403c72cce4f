"""`fewshot list`: every benchmark, learner and backbone; every config."""

from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table

from fewshot.cli import configs
from fewshot.cli.catalogue import Entry, benchmarks, learners, networks
from fewshot.cli.options import Options
from fewshot.errors import FewshotError, nearest

CLASSES: dict[str, tuple[str, Callable[[], list[Entry]]]] = {
    "benchmarks": ("Benchmarks (--data)", benchmarks),
    "learners": ("Learners (--model)", learners),
    "backbones": ("Backbones (--model.backbone)", networks),
}
KINDS = (*CLASSES, "configs")


def list_classes(args: Sequence[str]) -> None:
    """Run the command."""
    parser = Options(
        "list", "Print every benchmark, learner and backbone, with what it is and its paper."
    )
    parser.add_argument(
        "kind", nargs="?", metavar="KIND", help=f"one alone: {', '.join(CLASSES)}; or configs"
    )
    kind: str | None = getattr(parser.read(args), "kind", None)
    if kind is not None and kind not in KINDS:
        raise FewshotError(f"{kind!r} is no kind of thing to list{nearest(kind, KINDS)}")
    console = Console()
    for title, entries in [CLASSES[k] for k in CLASSES if kind in (None, k)]:
        rows = [(entry.name, _summary(entry), entry.paper) for entry in entries()]
        console.print(_table(title, ("class", "what it is", "paper"), rows))
    if kind == "configs":
        described = [(name, configs.header(name)) for name in configs.names()]
        console.print(_table("Configs (--config)", ("config", "what it is"), described))


def _summary(entry: Entry) -> str:
    """What it is, and what it is called for short."""
    names = ", ".join((*entry.short_names, *entry.aliases))
    return f"{entry.summary} Also: {names}." if names else entry.summary


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", expand=False)
    for column in columns:
        table.add_column(column, no_wrap=column == columns[0], overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
