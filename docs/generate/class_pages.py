"""Writes a page for each learner and benchmark, and the public names, when the site is built."""

import ast
from collections.abc import Sequence
from pathlib import Path

import api_page

from fewshot.cli.aliases import names
from fewshot.cli.catalogue import Entry, benchmarks, learners
from fewshot.cli.definitions import Argument, arguments, definition
from fewshot.cli.records import Record, read_all

KINDS = {
    "learners": ("Learners", "--model", learners),
    "benchmarks": ("Benchmarks", "--data", benchmarks),
}
FIGURES = "## Figures\n\n| record | benchmark | task | measured |\n|---|---|---|---|\n"


def page(entry: Entry, option: str, records: Sequence[Record]) -> str:
    """The page of a class: what it is, how it is named, its figures, its own arguments."""
    found = definition(entry.name)
    doc = entry.doc.partition("\nArgs:")[0].strip()
    every = f"Every argument: `fewshot fit {option}.help {entry.name}`."
    parts = [f"# {entry.name}", doc, every]
    if records:
        parts.append(FIGURES + "\n".join(map(row, records)))
        parts.append(f"Example:\n\n```sh\n{records[0].steps[0].command}\n```")
    own = [a for a in arguments(entry.name) if found is not None and a.owner.name == found.name]
    if own:
        parts.append("## Arguments\n\n" + "\n".join(map(argument, own)))
    return "\n\n".join(parts) + "\n"


def row(record: Record) -> str:
    """A record's first figure, and a link to its page."""
    step, link = record.steps[0], f"[{record.title}](../../results/{record.name}.md)"
    return f"| {link} | {record.benchmark} | {step.task} | {step.figures[-1]} |"


def argument(one: Argument) -> str:
    """A line on an argument: name, default, what it is."""
    default = "" if one.default is None else f" (default `{ast.unparse(one.default)}`)"
    return f"- `{one.name}`{default}: {one.text}"


def pages() -> dict[str, str]:
    """All pages by their path, with an index a kind."""
    records, found = list(read_all()), dict[str, str]()
    for kind, (title, option, entries) in KINDS.items():
        lines = [f"# {title}", ""]
        for entry in entries():
            called = {entry.name, *names(entry)}
            of = [r for r in records if called & {r.learner, r.benchmark}]
            found[f"{kind}/{entry.name}.md"] = page(entry, option, of)
            lines.append(f"- [{entry.name}]({entry.name}.md): {entry.summary}")
        toctree = "\n\n```{toctree}\n:hidden:\n:glob:\n*\n```\n"
        found[f"{kind}/index.md"] = "\n".join(lines) + toctree
    return found | {"api.md": api_page.page()}


def write(folder: Path) -> None:
    """Write them below `folder`."""
    for name, text in pages().items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            file.write_text(text, encoding="utf-8")
