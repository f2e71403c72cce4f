"""Writes the site's notebooks as files that Jupyter opens, when the site is built.

The site executes `docs/notebooks/*.md` themselves; these files are to be downloaded, without
outputs.
"""

import json
import re
from pathlib import Path
from typing import Any

HEADER = re.compile(r"\A---\n.*?^---\n", re.M | re.S)
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::\w+:[^\n]*\n)*)(.*?)^```$", re.M | re.S)
OF_THE_SITE = {
    r"[^\n]*\{download\}[^\n]*\n": "",  # the line that leads to the file
    r"\{term\}`([^`]*)`": r"\1",
    r"\[([^]]*)\]\((?!\w+:)[^)]*\)": r"\1",  # links to its pages, which are not beside the file
}
"""What only the site reads, and what takes its place."""
VERSION = (4, 5)  # of the format


def cells(text: str) -> list[tuple[str, str]]:
    """The cells of a notebook's source: ``markdown`` or ``code``, and its lines."""
    found, body, end = [], HEADER.sub("", text), 0
    for match in CELL.finditer(body):
        found += [("markdown", body[end : match.start()]), ("code", match[2])]
        end = match.end()
    found.append(("markdown", body[end:]))
    return [(kind, lines.strip("\n")) for kind, lines in found if lines.strip()]


def plain(text: str) -> str:
    """Prose without what only the site reads."""
    for pattern, instead in OF_THE_SITE.items():
        text = re.sub(pattern, instead, text)
    return text.strip("\n")


def notebook(text: str) -> dict[str, Any]:
    """The notebook of a source, as `nbformat` describes it."""
    return {
        "cells": [cell(number, *of) for number, of in enumerate(cells(text))],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}
        },
        "nbformat": VERSION[0],
        "nbformat_minor": VERSION[1],
    }


def cell(number: int, kind: str, lines: str) -> dict[str, Any]:
    """A cell of it."""
    shared = {"id": f"cell-{number}", "cell_type": kind, "metadata": {}}
    if kind == "markdown":
        return {**shared, "source": plain(lines)}
    return {**shared, "source": lines, "outputs": [], "execution_count": None}


def write(sources: Path, folder: Path) -> None:
    """Write those of a folder of sources into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for source in sources.glob("*.md"):
        text = source.read_text(encoding="utf-8")
        if CELL.search(text):
            made = json.dumps(notebook(text), indent=1, ensure_ascii=False) + "\n"
            (folder / f"{source.stem}.ipynb").write_text(made, encoding="utf-8")
