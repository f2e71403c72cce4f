"""Writes docs/results/ and what README and docs/challenges.md show of results/ (`make results`)."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from plot import LEGEND, plot
from side_by_side import beside

from fewshot.cli.records import Figure, Paper, Record, Step, read_all

Says = Callable[[Record], str]
ROOT = Path(__file__).resolve().parents[2]
NOTE = (
    "<!-- Written by `make results` from the folder results/: change the records, not this. -->\n"
)
FACTS = {"trained": "Trained on", "time": "Time", "machine": "Machine", "remark": "Remark"}
README = (  # the record, and how many of its runs README shows
    ("glyphs/protonet_5way1shot", 1),
    ("omniglot/protonet_5way1shot", 2),
    ("omniglot/maml_plus_plus_5way1shot", 1),
    ("bandit/rl2_5arms_10pulls", 1),
    ("sinusoid/maml_10shot", 1),
    ("cifar_fs/rfs", 2),
    ("cifar_fs/laplacian_shot", 1),
    ("clinc150/minilm_frozen", 2),
)
OPEN, CLOSE = "<!-- figures -->\n", "<!-- end of figures -->"


def pages() -> dict[str, str]:
    """Every page of docs/results/, by its path in there."""
    records = list(read_all())
    found = {f"{record.name}.md": page(record) for record in records}
    found["README.md"] = index(records)
    found["by-learner.md"] = (
        NOTE
        + "# Figures by learner\n"
        + tables(
            records,
            lambda record: record.learner,
            {"benchmark": lambda record: record.benchmark, "record": told_apart(records)},
        )
    )
    return found


def index(records: Sequence[Record]) -> str:
    """The leaderboard, a table a benchmark."""
    intro = (
        f"{NOTE}# Measured figures\n\n{len(records)} records, each with the command that gave it."
        " A figure is a mean over test episodes with its 95 % interval, from the best checkpoint on"
        " validation. `fewshot reproduce NAME` runs a record and says whether the outcome lies in"
        " its interval. Sorted by learner: [by-learner.md](by-learner.md). What was tried and"
        " dropped, and speed: [the journal](../journal/measurements.md).\n\nA gap to the paper is"
        " marked: ▲ above it, ▼ below it by more than the interval, ≈ within.\n"
    )
    return intro + tables(
        records,
        lambda record: record.benchmark,
        {"record": told_apart(records), "learner": lambda record: record.learner},
    )


def told_apart(records: Sequence[Record]) -> Says:
    """The titles; of records with the same on a benchmark also what is another in the protocol."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.benchmark, record.title), []).append(record)
    titles = {}
    for (_, title), alike in groups.items():
        parts = [record.protocol.split(", ") for record in alike]
        another = [part for part in zip(*parts, strict=False) if len({*part}) > 1]
        for number, record in enumerate(alike):
            titles[record.name] = f"{title}, {another[0][number]}" if another else title
    return lambda record: titles[record.name]


def tables(records: Iterable[Record], of: Says, columns: Mapping[str, Says]) -> str:
    """A table for each thing that the records are grouped by; the site can hide some of them.

    Args:
        records: in their order.
        of: what they are grouped by.
        columns: the first two and what they say; the first is a link.
    """
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(of(record), []).append(record)
    titles = (*columns, "task", "measured", "paper", "")
    head = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    lines = []
    for name in sorted(groups, key=str.lower):
        lines += ["", f"## {name}", "", *head]
        for record in groups[name]:
            first, second = (says(record) for says in columns.values())
            lines += rows(record, f"[{first}]({record.name}.md)", second)
    return "\n".join(lines) + "\n"


def rows(record: Record, first: str, second: str) -> list[str]:
    """A record's rows: one a figure, what it is in the first."""
    cells = []
    for step in record.steps:
        for figure in step.figures:
            paper, mark = (published(figure), gap(figure, step)[0]) if figure.paper else ("", "")
            cells.append(f"{step.task} | {figure.metric} {figure} | {paper} | {mark} |")
    named = [f"{first} | {second}", *[" | "] * len(cells)]
    return [f"| {name} | {cell}" for name, cell in zip(named, cells, strict=False)]


def published(figure: Figure) -> str:
    """The paper's figure, as it prints it."""
    paper = figure.paper
    assert paper is not None
    value = f"{paper.low:g}" if paper.low == paper.high else f"{paper.low:g} to {paper.high:g}"
    spread = "" if paper.ci95 is None else f" ± {paper.ci95:g}"
    return f"{value}{spread} {figure.unit}".rstrip()


def gap(figure: Figure, step: Step) -> tuple[str, str]:
    """The sign of a figure's difference to the paper's, and a sentence."""
    paper = figure.paper
    assert paper is not None
    nearest = min(max(figure.mean, paper.low), paper.high)
    difference = figure.mean - nearest
    width = figure.interval(step.folds) or 0.0
    points = f"{abs(difference):.3g} {'points' if figure.unit == '%' else ''}".rstrip()
    if abs(difference) <= width:
        return "≈", f"{published(figure)}: within our interval."
    sign = "▲" if difference > 0 else "▼"
    where = "above" if difference > 0 else "below"
    return sign, f"{published(figure)}: ours is {points} {where} it, more than our interval."


def source(paper: Paper) -> str:
    """A link to where a published figure stands."""
    number = paper.source.removeprefix("arXiv:")
    link = paper.source if number == paper.source else f"https://arxiv.org/abs/{number}"
    return f"[{paper.source}]({link})"


def page(record: Record) -> str:
    """The page of a record."""
    parts = [
        f"{NOTE}# {record.title} on {record.benchmark}",
        f"{record.learner}; {record.protocol}.",
    ]
    for step in record.steps:
        folds = f" (for FOLD = 0 to {step.folds - 1})" if step.folds else ""
        parts.append(
            f"## {step.task[0].upper()}{step.task[1:]}\n\n```sh\n{step.command}\n```{folds}"
        )
        parts.append(
            "| metric | measured | paper | source |\n|---|---|---|---|\n"
            + "\n".join(
                f"| {figure.metric} | {figure} | {published(figure) if figure.paper else ''} |"
                f" {source(figure.paper) if figure.paper else ''} |"
                for figure in step.figures
            )
        )
        parts += [gap(figure, step)[1] for figure in step.figures if figure.paper]
    if picture := plot(record):
        parts.append(f"## Side by side\n\n```text\n{picture}\n```\n\n{LEGEND}")
    facts = [
        f"- {label}: {record.facts[key]}" for key, label in FACTS.items() if key in record.facts
    ]
    facts.append(f"- Recorded: {record.facts.get('date')}, commit {record.facts.get('commit')}")
    parts.append("## How it was measured\n\n" + "\n".join(facts))
    words = " ".join(["fewshot reproduce", record.name, *(f"{n}=PATH" for n in record.needs)])
    parts.append(f"Run it again: `{words}`")
    parts.append("All figures: [the leaderboard](../README.md).")
    return "\n\n".join(parts) + "\n"


def readme(text: str) -> str:
    """README's text with its table of figures written anew."""
    records = {record.name: record for record in read_all()}
    lines = ["| benchmark, protocol | learner | measured | paper | time |", "|---|---|---|---|---|"]
    for name, shown in README:
        record = records[name]
        for number, step in enumerate(record.steps[:shown]):
            figure = step.figures[-1]
            paper = published(figure) if figure.paper else ""
            title = f"[{record.title}](docs/results/{name}.md)"
            cells = (f"{record.benchmark}, {step.task}", title, str(figure), paper)
            time = record.facts.get("time", "") if number == 0 else ""
            lines.append(f"| {' | '.join(cells)} | {time} |")
    before, _, rest = text.partition(OPEN)
    after = rest.partition(CLOSE)[2]
    return before + OPEN + "\n".join(lines) + "\n" + CLOSE + after


def main() -> None:
    """Write all pages, remove those of no record, and mend README."""
    folder, wanted = ROOT / "docs/results", pages()
    for path in folder.rglob("*.md"):
        if path.relative_to(folder).as_posix() not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name, anew in (("README.md", readme), ("docs/challenges.md", beside)):
        file = ROOT / name
        file.write_text(anew(file.read_text(encoding="utf-8")), encoding="utf-8")


def figures(text: str) -> list[str]:
    """The figures with intervals, of accuracies, in a text."""
    return re.findall(r"-?[\d.]+ ± [\d.]+(?: %)?", text)


if __name__ == "__main__":
    main()
