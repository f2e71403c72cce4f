"""Tables of labelled texts: CSV, TSV and JSON lines with named columns."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from fewshot.datasets.reading.text_files import BREAK, Line, no_text, read_lines, read_text, told
from fewshot.errors import FewshotError, nearest
from fewshot.files.tables import printable

ENDINGS = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson")
DELIMITERS = (",", ";", "\t", "|")
TEXT = (
    *("text", "texts", "sentence", "utterance", "query", "question", "message", "content"),
    *("review", "comment", "tweet", "document", "body", "description", "phrase", "input", "title"),
)
LABEL = (
    *("label", "labels", "class", "intent", "category", "target", "topic", "tag", "sentiment"),
    *("label_text", "label_name", "class_name", "emotion", "domain", "type", "y", "output"),
)
"""What columns of texts and of labels are usually called, the likeliest first."""

Record: TypeAlias = tuple[Line, Mapping[str, Any] | str]
"""A line and its values by column, or why it has none."""


@dataclass
class TextTable:
    """What a table holds.

    Args:
        text_column: the column of the texts.
        label_column: that of the labels; None where there is none.
        texts: of each label, in the order of the lines.
        every: all texts and the label of each, in the order of the lines.
        faults: of each label what is wrong with lines; of lines without one under "".
        needed: the arguments that name the columns, where their names do not tell them.
    """

    text_column: str
    label_column: str | None
    texts: dict[str, list[str]] = field(default_factory=dict)
    every: list[tuple[str, str]] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)
    needed: dict[str, str] = field(default_factory=dict)
    columns: Sequence[str] = ()

    def not_named(self) -> list[str]:
        """What is wrong with the columns' names, if anything is."""
        if not self.needed:
            return []
        asked = " and ".join(name.partition("_")[0] for name in self.needed)
        names = ", ".join(map(repr, self.columns))
        return [
            printable(
                f"of the columns {names} none is called {asked}, or what is usual (is the first"
                " line no line of names? then put text,label above it)"
            )
        ]

    def fault(self, label: str, what: str) -> None:
        """Note what is wrong with a line."""
        self.faults.setdefault(label, []).append(what)


def is_table(path: Path) -> bool:
    """Whether a file is a table by its ending."""
    return path.suffix.lower() in ENDINGS


def read_table(
    path: Path,
    text_column: str | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
    words: bool = False,
    labelled: bool = True,
) -> TextTable:
    """Read the texts and labels of a table.

    Args:
        path: the file.
        text_column: the column of the texts; None: what is usually called so, or is the only other.
        label_column: the same of the labels.
        encoding: of a file that is not in UTF-8.
        words: a text without a letter or a digit is a fault.
        labelled: there must be labels; otherwise they are taken where a column is called so.

    Raises:
        FewshotError: it cannot be read, is empty, or has no such column.
    """
    json_lines = path.suffix.lower() in (".jsonl", ".ndjson")
    records = list(_objects(path, encoding) if json_lines else _rows(path, encoding))
    found = [values for _, values in records if not isinstance(values, str)]
    columns = list(dict.fromkeys(name for values in found for name in values))
    if not columns:
        why = f": {records[0][1]}" if records else ""
        raise FewshotError(
            f"{path} has no line that can be read{why}; give it a column of texts and one of"
            " labels, named by the first line"
        )
    for name in (text_column, label_column):
        if name is not None and name not in columns:
            raise FewshotError(f"{path} has no column {name!r}{nearest(name, columns)}")
    table = _choose(columns, found, text_column, label_column, labelled)
    for line, values in records:
        if isinstance(values, str):
            table.fault("", told(path, line, values))
        else:
            _take(table, path, line, values, words, labelled)
    return table


def _take(
    table: TextTable,
    path: Path,
    line: Line,
    values: Mapping[str, Any],
    words: bool,
    labelled: bool,
) -> None:
    text, label = values.get(table.text_column), _label(values.get(table.label_column or ""))
    why = None
    if text is None or (isinstance(text, str) and not text.strip()):
        why = "has no text"
    elif not isinstance(text, str):
        why = "has something else than a text"
    else:
        why = no_text(text, words)
    if not why and labelled:
        why = "has no label" if not label else no_text(label)
    if why:
        table.fault(label, told(path, line, why))
        return
    assert isinstance(text, str)
    table.texts.setdefault(label, []).append(text.strip())
    table.every.append((text.strip(), label))


def _label(value: Any) -> str:
    return str(value).strip() if isinstance(value, str | int | float) else ""


def _objects(path: Path, encoding: str | None) -> Iterator[Record]:
    """The objects of a file of JSON lines."""
    for line in read_lines(path, encoding):
        try:
            value = json.loads(line.text)
        except (ValueError, RecursionError):
            yield line, "is no JSON"
            continue
        yield line, value if isinstance(value, dict) else "is no object of JSON"


def _rows(path: Path, encoding: str | None) -> Iterator[Record]:
    """The rows of a table, by the columns that its first line names."""
    lines = BREAK.split(read_text(path, encoding))
    first = next((line for line in lines if line.strip()), "")
    tabs = path.suffix.lower() in (".tsv", ".tab")
    delimiter = "\t" if tabs else max(DELIMITERS, key=lambda one: len(_cells(first, one)))
    records = list(_split(lines, delimiter, csv.QUOTE_MINIMAL))
    if delimiter == "\t" and any(isinstance(cells, str) for _, cells in records):
        # then quotes are characters like others, as most programs that write tabs have it
        records = list(_split(lines, delimiter, csv.QUOTE_NONE))
    names: list[str] | None = None
    for number, cells in records:
        line = Line(number, lines[number - 1])
        if isinstance(cells, str):
            yield line, cells
        elif not any(cell.strip() for cell in cells):
            continue
        elif names is None:
            names = [cell.strip() for cell in cells]
            _check_names(path, names)
        elif len(cells) > len(names):
            yield line, f"has {len(cells)} columns, where the first line names {len(names)}"
        else:
            yield line, dict(zip(names, cells, strict=False))


def _check_names(path: Path, names: Sequence[str]) -> None:
    """Check that each column that has a name has its own; else nobody knows which is meant."""
    if twice := [name for name in dict.fromkeys(names) if name and names.count(name) > 1]:
        told = printable(", ".join(map(repr, twice)))
        raise FewshotError(
            f"{path} has several columns called {told}; give each a name of its own in the first"
            " line"
        )


def _cells(line: str, delimiter: str) -> list[str]:
    return next(_reader([line], delimiter), [])


def _reader(lines: Iterable[str], delimiter: str, **how: Any) -> Any:
    """The rows of lines; NUL, which Python 3.10 refuses, is read as another control character."""
    return csv.reader((line.replace("\0", "\1") for line in lines), delimiter=delimiter, **how)


def _split(
    lines: Sequence[str], delimiter: str, quoting: Any
) -> Iterator[tuple[int, list[str] | str]]:
    """The cells of each record and the number of its first line; or what is wrong with a line.

    A quote that is not closed is the fault of its own line alone.
    """
    at = 0
    while at < len(lines):
        rest = (f"{lines[place]}\n" for place in range(at, len(lines)))
        reader = _reader(rest, delimiter, quoting=quoting, strict=True)
        try:
            cells = next(reader)
        except csv.Error as error:
            yield at + 1, f"cannot be split into columns ({error})"
            at += 1
        else:
            yield at + 1, cells
            at += reader.line_num


def _choose(
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    text_column: str | None,
    label_column: str | None,
    labelled: bool,
) -> TextTable:
    """The columns of texts and labels: as told, by their names, or by what they hold."""
    text = text_column or _called(TEXT, [c for c in columns if c != label_column])
    label = label_column or _called(LABEL, [c for c in columns if c != text])
    others = [c for c in columns if c not in (text, label)]
    if text is None and len(others) == 1 and (label or not labelled):
        text = others[0]
    elif labelled and label is None and text is not None and len(others) == 1:
        label = others[0]
    needed = {}
    if text is None:
        text = needed["text_column"] = max(others or columns, key=lambda c: _length(rows, c))
        others = [c for c in columns if c not in (text, label)]
    if label is None and labelled:
        if not others:
            raise FewshotError(
                f"there is one column alone, {printable(text)!r}; add one of labels, and name the"
                " columns by a first line such as text,label"
            )
        label = needed["label_column"] = min(others, key=lambda c: _variety(rows, c))
    return TextTable(text, label, needed=needed, columns=columns)


def _called(usual: Sequence[str], columns: Sequence[str]) -> str | None:
    """The column with the likeliest of the usual names."""
    by_name = {column.strip().lower(): column for column in reversed(columns)}
    return next((by_name[name] for name in usual if name in by_name), None)


def _length(rows: Sequence[Mapping[str, Any]], column: str) -> int:
    return sum(len(value) for row in rows if isinstance(value := row.get(column), str))


def _variety(rows: Sequence[Mapping[str, Any]], column: str) -> tuple[bool, bool, int]:
    """How many values a column has; numbers come later, and those of one value last."""
    values = {_label(row.get(column)) for row in rows} - {""}
    return len(values) < 2, all(map(str.isdecimal, values)), len(values)
