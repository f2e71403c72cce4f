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
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # which behind the end of a row is a length
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
"""What TeX reads as something else."""
MARKDOWN = r"([\\`*\[\]<>|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))"
"""What Markdown reads as something else; an underscore within a word is one."""


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
    may_stand_below: bool = False
    """Whether on a narrow screen each of its values gets a line below the table, by its number."""


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
        titles = [column.title for column in self.for_people]
        return [[_in_line(cell) for cell in row] for row in (titles, *rows)]

    @property
    def told(self) -> list[str]:
        """Title, caption and notes, where these stand in lines of their own."""
        return [_in_line(line) for line in (self.title, self.caption, *self.notes) if line]


def _in_line(text: str) -> str:
    r"""A text in one line, without what steers a terminal.

    >>> _in_line("my\x1b[1m\nrun")
    'my [1m run'
    """
    shown = (character if character.isprintable() else " " for character in printable(text))
    return " ".join("".join(shown).split())


def _on_screen(sheet: Sheet) -> None:
    from rich.console import Console  # here: what answers in CSV needs none
    from rich.table import Table
    from rich.text import Text

    console = Console()
    below: list[str] = []
    columns = [[*texts] for texts in zip(*sheet.texts(), strict=True)]
    table = Table(title=sheet.title, caption=sheet.caption or None)
    is_narrow = _width(sheet.for_people, columns) > console.width
    shown = []
    for column, texts in zip(sheet.for_people, columns, strict=True):
        if is_narrow and column.may_stand_below:
            below = [f"{number}: {text}" for number, text in enumerate(texts[1:], start=1)]
            continue
        # not as markup: names may have brackets
        justify: Literal["left", "right"] = "left" if column.is_text else "right"
        table.add_column(Text(texts[0]), justify=justify, overflow="fold")
        shown.append(texts[1:])
    for number, row in enumerate(zip(*shown, strict=True), start=1):
        if sheet.has_total and number == len(sheet.rows):
            table.add_section()
        table.add_row(*map(Text, row))
    console.print(table)
    for note in (*below, *sheet.notes):
        console.print(_in_line(note), markup=False, highlight=False, soft_wrap=True)


def _width(columns: Sequence[Column], texts: Sequence[Sequence[str]]) -> int:
    """Of a table in which only titles, and what may stand below, are broken, at blanks."""
    from rich.cells import cell_len

    width = 1
    for column, (title, *cells) in zip(columns, texts, strict=True):
        if column.may_stand_below:
            cells = " ".join(cells).split()
        width += 3 + max(map(cell_len, [*title.split(), *cells]), default=0)
    return width


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
        print(line, file=sys.stderr)


def _as_markdown(sheet: Sheet) -> None:
    titles, *rows = sheet.texts()
    rule = ["---" if column.is_text else "---:" for column in sheet.for_people]
    lines = [titles, rule, *rows]
    for line in lines:
        print(f"| {' | '.join(map(_of_markdown, line))} |")
    for note in sheet.told:
        print(f"\n{_of_markdown(note)}")


def _of_markdown(text: str) -> str:
    return re.sub(MARKDOWN, r"\\\1", text)


def _as_latex(sheet: Sheet) -> None:
    r"""A tabular of the package booktabs, to ``\input``."""
    titles, *rows = sheet.texts()
    for note in sheet.told:
        print(f"% {note}")
    sides = "".join("l" if column.is_text else "r" for column in sheet.for_people)
    print(rf"\begin{{tabular}}{{{sides}}}", r"\toprule", sep="\n")
    for line in (titles, *rows):
        print(f"{' & '.join(map(_of_tex, line))} {chr(92) * 2}")
        if line is titles:
            print(r"\midrule")
    print(r"\bottomrule", r"\end{tabular}", sep="\n")


def _of_tex(text: str) -> str:
    special = "|".join(map(re.escape, LATEX))
    escaped = re.sub(special, lambda match: LATEX[match[0]], text)
    return re.sub(r"(?<!\S)-(?=\d)", "$-$", escaped)  # a minus is no hyphen


FORMATS = {
    "table": _on_screen,
    "csv": _as_csv,
    "markdown": _as_markdown,
    "latex": _as_latex,
}
