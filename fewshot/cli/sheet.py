"""A table of figures, written for the screen, a spreadsheet, a page or a paper."""

import csv
import math
import re
import sys
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from fewshot.files.tables import printable, safe_cell
from fewshot.tasks.estimates import format_estimate, scale_of

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
"""What TeX reads as something else."""


class Figure(NamedTuple):
    """A mean with its interval or deviation, and its rank in brackets behind them."""

    mean: float | None
    """None: the rank stands alone."""
    spread: float | None
    unit: str = ""
    rank: float | None = None
    bare: bool = False
    """Whether the unit stands in the title."""
    signed: bool = False

    def __str__(self) -> str:
        """As people read it."""
        if self.mean is None or self.spread is None:
            return f"{self.rank:.2f}"
        scale, unit = (scale_of(self.unit), "") if self.bare else (1.0, self.unit)
        text = format_estimate(scale * self.mean, scale * self.spread, unit, self.signed)
        return text if self.rank is None else f"{text} ({self.rank:g})"

    @property
    def values(self) -> tuple[Any, ...]:
        """As programs read it: None for what is unknown, and no units."""
        numbers = [None if n is None or math.isnan(n) else n for n in (self.mean, self.spread)]
        return (*numbers, self.rank)


class Column(NamedTuple):
    """A column: its title, and how its values are written."""

    title: str
    parts: tuple[str, ...] = ()
    """Of figures, the names of their mean, spread and rank in CSV; an empty one leaves it out."""
    form: str = "{}"
    is_text: bool = False
    """Whether it is flush left."""
    in_csv_alone: bool = False


class Sheet(NamedTuple):
    """A table."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    """Text, numbers, figures; None for what is unknown."""
    caption: str = ""
    notes: Sequence[str] = ()
    """A line each."""
    has_total: bool = False
    """Whether the last row is of all others."""

    def write(self, form: str) -> None:
        """Print it in one of `FORMATS`."""
        FORMATS[form](self)

    @property
    def for_people(self) -> list[Column]:
        """The columns that are not for CSV alone."""
        return [column for column in self.columns if not column.in_csv_alone]

    def texts(self) -> list[list[str]]:
        """The titles and the rows as people read them."""
        rows = [
            [
                "" if cell is None else column.form.format(cell)
                for cell, column in zip(row, self.columns, strict=True)
                if not column.in_csv_alone
            ]
            for row in self.rows
        ]
        return [[column.title for column in self.for_people], *rows]

    @property
    def told(self) -> list[str]:
        """Title, caption and notes, where these stand in lines of their own."""
        return [line for line in (self.title, self.caption, *self.notes) if line]


def _on_screen(sheet: Sheet) -> None:
    from rich.console import Console  # here: what answers in CSV needs none
    from rich.table import Table
    from rich.text import Text

    table = Table(title=sheet.title, caption=sheet.caption or None)
    titles, *rows = sheet.texts()
    for column, title in zip(sheet.for_people, titles, strict=True):
        # not as markup: names may have brackets
        justify: Literal["left", "right"] = "left" if column.is_text else "right"
        table.add_column(Text(printable(title)), justify=justify, overflow="fold")
    for number, row in enumerate(rows, start=1):
        if sheet.has_total and number == len(rows):
            table.add_section()
        table.add_row(*(Text(printable(cell)) for cell in row))
    console = Console()
    console.print(table)
    for note in sheet.notes:
        console.print(printable(note), markup=False, highlight=False, soft_wrap=True)


def _as_csv(sheet: Sheet) -> None:
    """Numbers in full and without units; shares are no per cent. Notes go to stderr."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    names = [part for column in sheet.columns for part in column.parts or [column.title] if part]
    writer.writerow(map(safe_cell, names))
    for row in sheet.rows:
        cells: list[Any] = []
        for column, cell in zip(sheet.columns, row, strict=True):
            values = cell.values if isinstance(cell, Figure) else (cell,)
            parts = column.parts or (column.title,)
            padded = (*values, *[None] * len(parts))
            cells += [value for value, part in zip(padded, parts, strict=False) if part]
        writer.writerow(map(safe_cell, cells))
    for line in sheet.told:
        print(printable(line), file=sys.stderr)


def _as_markdown(sheet: Sheet) -> None:
    titles, *rows = sheet.texts()
    rule = ["---" if column.is_text else "---:" for column in sheet.for_people]
    lines = [titles, rule, *rows]
    for line in lines:
        print(f"| {' | '.join(printable(cell).replace('|', chr(92) + '|') for cell in line)} |")
    for note in sheet.told:
        print(f"\n{printable(note)}")


def _as_latex(sheet: Sheet) -> None:
    r"""A tabular of the package booktabs, to ``\input``."""
    titles, *rows = sheet.texts()
    for note in sheet.told:
        print(f"% {printable(note)}")
    sides = "".join("l" if column.is_text else "r" for column in sheet.for_people)
    print(rf"\begin{{tabular}}{{{sides}}}", r"\toprule", sep="\n")
    for line in (titles, *rows):
        print(f"{' & '.join(map(_of_tex, line))} {chr(92) * 2}")
        if line is titles:
            print(r"\midrule")
    print(r"\bottomrule", r"\end{tabular}", sep="\n")


def _of_tex(text: str) -> str:
    special = "|".join(map(re.escape, LATEX))
    escaped = re.sub(special, lambda match: LATEX[match[0]], printable(text))
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)  # a minus is no hyphen


FORMATS = {
    "table": _on_screen,
    "csv": _as_csv,
    "markdown": _as_markdown,
    "latex": _as_latex,
}
