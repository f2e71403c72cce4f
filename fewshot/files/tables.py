"""CSV files that a spreadsheet can open without running what a name says.

A cell of text that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line end is a formula to a
spreadsheet (OWASP, "CSV injection"): such a cell gets an apostrophe before it. So does one that
begins with an apostrophe: to read a table back, drop one apostrophe from the beginning of a cell.
Numbers stay as they are.
"""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from fewshot.files import atomic_write

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""What a cell of text must not begin with."""


def write_table(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write `rows` as CSV in UTF-8, whole or not at all."""
    with atomic_write(path) as file:
        writer = csv.writer(file)
        writer.writerows([safe_cell(value) for value in row] for row in rows)


def safe_cell(value: Any) -> Any:
    r"""What stands in a table for a value.

    >>> safe_cell("=1+1"), safe_cell("-a.png"), safe_cell(-1.5), safe_cell("a\udcff.png")
    ("'=1+1", "'-a.png", -1.5, 'a\\xff.png')
    """
    if not isinstance(value, str):
        return value
    text = printable(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def printable(name: str) -> str:
    r"""A file's name as text: of one that is not UTF-8, the odd bytes as ``\xff``."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
