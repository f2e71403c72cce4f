"""Writes a page for each learner and benchmark, and the public names, when the site is built."""

import ast
import re
from collections.abc import Sequence
from pathlib import Path

import api_page

from fewshot.cli import configs
from fewshot.cli.aliases import names
from fewshot.cli.catalogue import Entry, benchmarks, learners
from fewshot.cli.definitions import Argument, arguments, definition, lineage
from fewshot.cli.records import Record, read_all

KINDS = {
    "learners": ("Learners", "--model", learners),
    "benchmarks": ("Benchmarks", "--data", benchmarks),
}
LINKS = "facts of a relation are to be found from one of them"
ANSWERS = "a language model is to answer from some thirty examples"
VALUES = "values are to be predicted, and it counts how sure they are"
FITTED = "a trained network is to be fitted to a task in one pass"
TOGETHER = "a network is trained already, and the queries of an episode come together"
TRANSDUCTIVE = ("BDCSPN", "LaplacianShot", "PTMAP", "TIM", "TransductiveFineTuning")
WHEN = {
    **dict.fromkeys(TRANSDUCTIVE, TOGETHER),
    **dict.fromkeys(("GMatching", "MetaR", "TransE", "TailFrequency", "WikiOneDataModule"), LINKS),
    **dict.fromkeys(("PET", "FineTuneText", "FewGLUEDataModule"), ANSWERS),
    **dict.fromkeys(("CNP", "ANP", "GaussianProcess"), VALUES),
    **dict.fromkeys(("CNAPs", "SimpleCNAPs"), FITTED),
    **dict.fromkeys(("PANet", "SegmentationDataModule"), "each pixel is to be named"),
    **dict.fromkeys(("PsCo", "UnlabelledDataModule"), "there are images, but no labels"),
    "MultiTask": "meta-learning needs something to be compared with",
    "RL2": "a policy is to find out how to act within a trial",
    "BERTPair": "relations in sentences are to be told apart",
    "SimpleShot": "there is a trained network, and nothing is to be trained further",
    "metric": "training should be quick and steady, and classes differ in what they look like",
    "model_based": "a network should find out by itself how to learn from examples",
    "optimization": "the adapted network must be your own, or values or actions are wanted",
    "transfer": "there is a trained network, or many classes to train one on as usual",
    "reference": "a policy that has learned needs something to be compared with",
    "ControlDataModule": "a learner is to act, and to find out how from rewards",
    "FunctionDataModule": "values are to be predicted, and a run should take minutes",
    "TextDataModule": "texts are to be told apart",
    "SourcesDataModule": "classes come from several sources, and all of them count",
    "OwnDataModule": "the data are your own",
    "ImageDataModule": "images are to be told apart",
}
"""When a class is for a user: by its name, what it derives from, or a learner's family."""
FIGURES = "## Figures\n\n| record | benchmark | task | measured |\n|---|---|---|---|\n"


def page(entry: Entry, option: str, records: Sequence[Record]) -> str:
    """The page of a class: what it is, when it is for one, its figures, an example, arguments."""
    found = definition(entry.name)
    doc = entry.doc.partition("\nArgs:")[0].strip()
    every = f"Every argument: `fewshot fit {option}.help {entry.name}`."
    parts = [f"# {entry.name}", doc, f"Choose it where {when(entry)}.", every]
    if records:
        parts.append(FIGURES + "\n".join(map(row, records)))
    parts.append(f"Example:\n\n```sh\n{example(entry, option, records)}\n```")
    own = [a for a in arguments(entry.name) if found is not None and a.owner.name == found.name]
    if own:
        parts.append("## Arguments\n\n" + "\n".join(map(argument, own)))
    return "\n\n".join(parts) + "\n"


def when(entry: Entry) -> str:
    """When a class is for a user."""
    found = definition(entry.name)
    assert found is not None
    keys = (*(each.name for each in lineage(found)), found.module.split(".")[2])
    return next(WHEN[key] for key in keys if key in WHEN)


def example(entry: Entry, option: str, records: Sequence[Record]) -> str:
    """A command that has the class: a record's, or with a config that names it, or with none."""
    if records:
        return records[0].steps[0].command
    named = re.compile(rf"class_path: (?:fewshot\.)?{entry.name}$", re.M)
    for config in configs.names():
        if named.search(Path(configs.locate(config)).read_text(encoding="utf-8")):
            return f"fewshot fit --config {config}"
    other = "--data GlyphsDataModule" if option == "--model" else "--model PrototypicalNetwork"
    return f"fewshot fit {option} {entry.name} {other}"


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
