"""Sentences of the site are short: at most 16 words on average on every page."""

import re
from pathlib import Path

import class_pages
import pytest

ROOT = Path(__file__).resolve().parents[1]
WRITTEN = {
    name: path.read_text()
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    if not (name := str(path.relative_to(ROOT))).startswith("docs/classes/")  # those of the build
}
APART = r"```.*?```|\$\$.*?\$\$|<!--.*?-->|^#[^\n]*|^[|!][^\n]*"
"""Code, equations, comments, headings, tables and pictures."""
ENDS = r"[.?!:]\s|\n\n|^ *(?:[-*]|\d+\.) "
"""Where a sentence ends; an item of a list is one at least."""


def mean_words(page: str) -> float:
    """Words a sentence; what stands in back quotes is a word."""
    prose = re.sub(APART, "", re.sub(r"{term}`([^`]*)`", r"\1", page), flags=re.S | re.M)
    parts = re.split(ENDS, re.sub(r"`[^`]*`", "code", prose), flags=re.M)
    sentences = [part.split() for part in parts if len(part.split()) > 1]
    return sum(map(len, sentences)) / max(len(sentences), 1)


def long_winded(pages: dict[str, str]) -> dict[str, float]:
    """The pages of longer sentences."""
    return {name: mean for name, text in pages.items() if (mean := mean_words(text)) > 16}


def test_sentences_of_written_pages_are_short() -> None:
    assert len(WRITTEN) > 90
    assert long_winded(WRITTEN) == {}


def test_sentences_of_docstrings_and_records_are_short() -> None:
    assert long_winded(class_pages.pages()) == {}


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("# A heading\n\nOne two three. Four five!", 2.5),
        ("Some `code of many words` here.\n\n```sh\na b c\n```\n", 3),
        ("- one two\n- three four\n- five six\n", 2),
        ("| a | table |\n|---|---|\n\n![a picture](b.png)\n\nThree words here", 3),
    ],
)
def test_words_of_a_sentence_are_counted(page: str, words: float) -> None:
    assert mean_words(page) == words
