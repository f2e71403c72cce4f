"""Text files of a user's own: their lines, whatever the encoding, and what is wrong with them."""

import codecs
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fewshot.datasets.reading.decoding import REMEDY, told_at_once
from fewshot.errors import FewshotError
from fewshot.files.tables import printable

SHOWN = 40  # characters of a line in a message
BREAK = re.compile("\r\n|\n|\r")  # unlike str.splitlines, which also cuts at ends of pages
NO_UTF8 = "is no text in UTF-8"
UNREAD = re.compile("[\udc80-\udcff]")  # what bytes become that are no text
CONTROL = re.compile("[\0-\x08\x0e-\x1f\x7f]")
WIDE = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # as spreadsheets write


class Line(NamedTuple):
    """A line of a file: its number from 1 on, and what it holds."""

    number: int
    text: str


def read_lines(path: Path, encoding: str | None = None) -> list[Line]:
    """The lines of a file that are not empty; bytes that are no text stand in them as surrogates.

    Args:
        path: the file, in UTF-8, or in UTF-16 with a mark at its beginning.
        encoding: of a file that is neither.

    Raises:
        FewshotError: it cannot be read, or there is no such encoding.
    """
    lines = enumerate(BREAK.split(read_text(path, encoding)), start=1)
    return [Line(number, text.strip()) for number, text in lines if text.strip()]


def read_text(path: Path, encoding: str | None = None) -> str:
    """What a file holds, see `read_lines`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FewshotError(
            f"{path} cannot be read ({error.strerror}); give a text file, a text a line"
        ) from error
    wide = WIDE.get(content[:2])
    try:  # files that were put together have marks of order inside
        return content.decode(wide or "utf-8").replace("\ufeff", "")
    except UnicodeDecodeError:
        try:
            return content.decode(encoding or "utf-8", "surrogateescape").replace("\ufeff", "")
        except LookupError as error:
            raise FewshotError(
                f"the encoding {encoding!r} is unknown; name one of Python's, such as cp1252"
            ) from error
        except UnicodeDecodeError as error:
            raise FewshotError(
                f"{path} is no text in {encoding} ({error.reason}); give its encoding"
            ) from error


def no_text(line: Any, words: bool = False) -> str | None:
    """Why a line is no text; None where it is one.

    Args:
        line: the line.
        words: it must have a letter or a digit: vocabularies are of words.
    """
    if not isinstance(line, str):
        return "is none"
    if UNREAD.search(line):
        return NO_UTF8
    if CONTROL.search(line):
        return "has characters of control, as no text has"
    if words and not any(map(str.isalnum, line)):
        return "has no word"
    return None


def told(path: Path, line: Line, why: str) -> str:
    """What is said of a line that is wrong."""
    text = repr(line.text[:SHOWN]).replace(r"\udc", r"\x")  # the odd bytes as bytes
    more = "..." if len(line.text) > SHOWN else ""
    return printable(f"{path} line {line.number} {why}: {text}{more}; {REMEDY} it")


def check_lines(faults: Sequence[str]) -> None:
    """Say what is wrong with lines, if anything is.

    Raises:
        FewshotError: in one line.
    """
    if faults:
        raise FewshotError(told_at_once(faults, "lines"))
