"""How many named queries are right: of each class, and in all, with their intervals."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from fewshot.files.tables import printable
from fewshot.tasks.proportions import share_interval


def right_table(
    classes: Sequence[str], labels: Sequence[str | None], named: Sequence[str]
) -> Table:
    """The share of right names among the queries of each class, and of all that have a class.

    Args:
        classes: in the order of the table.
        labels: the class of each query; None where it is not known.
        named: the class that it was given; a query left unnamed is not right.
    """
    table = Table(title="accuracy", caption="intervals are exact (Clopper-Pearson)")
    table.add_column("class", overflow="fold")
    for title in ("right", "accuracy", "95 % interval"):
        table.add_column(title, justify="right")
    pairs = [(label, name) for label, name in zip(labels, named, strict=True) if label is not None]
    for one in classes:
        if of_class := [name == label for label, name in pairs if label == one]:
            table.add_row(Text(printable(one)), *written(sum(of_class), len(of_class)))
    table.add_section()
    table.add_row("all", *written(sum(label == name for label, name in pairs), len(pairs)))
    return table


def written(right: int, number: int) -> tuple[str, str, str]:
    """So many right of so many, their share, and its interval."""
    low, high = share_interval(right, number)
    return f"{right} of {number}", f"{100 * right / number:.1f} %", f"{interval(low, high)} %"


def interval(low: float, high: float) -> str:
    """Both ends of an interval of a share, in per cent."""
    return f"{100 * low:.1f} - {100 * high:.1f}"
