"""`fewshot list`: everything that is exported is there, with what it is and where it comes from."""

import inspect
import re
from collections.abc import Callable

import pytest
from rich.console import Console

import fewshot
from fewshot.backbones import Backbone, Conv4
from fewshot.cli.catalogue import Entry, benchmarks, find, learners, networks
from fewshot.cli.main import main
from fewshot.datamodules import EpisodicDataModule
from fewshot.lazy import public_names
from fewshot.learners import MetaLearner

KINDS = ((EpisodicDataModule, benchmarks), (MetaLearner, learners), (Backbone, networks))


def exported(base: type) -> set[str]:
    """The concrete subclasses of `base` that the package exports, by importing them all."""
    everything = (getattr(fewshot, name) for name in public_names("fewshot"))
    classes = [cls for cls in everything if isinstance(cls, type) and issubclass(cls, base)]
    return {cls.__name__ for cls in classes if cls is not base and not unfinished(cls)}


def unfinished(cls: type) -> bool:
    """Whether a class leaves an abstract method; Lightning's have no metaclass that knows."""
    return any(getattr(getattr(cls, n, None), "__isabstractmethod__", False) for n in dir(cls))


@pytest.mark.parametrize(("base", "entries"), KINDS)
def test_every_exported_class_is_listed(base: type, entries: Callable[[], list[Entry]]) -> None:
    names = [entry.name for entry in entries()]
    assert set(names) == exported(base)
    assert names == sorted(names, key=str.lower)


@pytest.mark.parametrize(
    "entry", [*benchmarks(), *learners(), *networks()], ids=lambda entry: entry.name
)
def test_every_entry_says_what_it_is_and_where_it_comes_from(entry: Entry) -> None:
    assert len(entry.summary.split()) >= 3
    assert entry.summary.endswith(".")
    assert "\n" not in entry.summary
    assert "Paper:" not in entry.summary
    assert entry.paper, f"the docstring of {entry.name} needs a sentence 'Paper: ...'"
    assert re.search(r"arXiv:\d{4}\.\d{4,5}|^none\b|\b(19|20)\d\d$", entry.paper)


def test_base_classes_are_not_listed() -> None:
    assert {"MetaLearner", "Backbone"} <= set(public_names("fewshot"))
    names = {entry.name for _, entries in KINDS for entry in entries()}
    assert not names & {
        "MetaLearner",
        "Backbone",
        "ImageDataModule",
        "MetricLearner",
        "OptimizationLearner",
    }


def test_classes_of_users_are_not_listed() -> None:
    class Own(Conv4):
        pass

    assert not inspect.isabstract(Own)
    assert "Own" not in [entry.name for entry in networks()]


@pytest.mark.parametrize(
    "entry", [*benchmarks(), *learners(), *networks()], ids=lambda entry: entry.name
)
def test_what_is_read_from_the_source_is_what_is_imported(entry: Entry) -> None:
    assert entry.cls.__name__ == entry.name
    assert entry.doc == inspect.getdoc(entry.cls)


def test_find() -> None:
    assert find("MAML") is fewshot.MAML
    assert find("fewshot.learners.optimization.maml.MAML") is fewshot.MAML
    assert find("Conv4") is fewshot.Conv4
    assert find("GlyphsDataModule") is fewshot.GlyphsDataModule
    assert find("torch.optim.Adam") is None


def test_list_prints_all(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for _, entries in KINDS:
        for entry in entries():
            assert entry.name in out
            assert entry.paper.split()[0] in out
    assert Console().width == 200


def test_a_narrow_list_leaves_nothing_out(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["list", "learners"]) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert all(len(line) <= 60 for line in out.splitlines())
