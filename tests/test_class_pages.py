"""The site's pages of classes: one each, from docstrings and records."""

import re

import api_page
import class_pages
import pytest

from fewshot.cli.catalogue import benchmarks, learners
from fewshot.lazy import public_names


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return class_pages.pages()


def test_each_class_has_a_page_with_what_it_takes_and_gave(pages: dict[str, str]) -> None:
    wanted = {f"learners/{entry.name}.md" for entry in learners()}
    wanted |= {f"benchmarks/{entry.name}.md" for entry in benchmarks()}
    assert wanted == {name for name in pages if not name.endswith(("index.md", "api.md"))}
    maml = pages["learners/MAML.md"]
    assert "arXiv:1703.03400" in maml
    assert "(../../results/omniglot/maml_5way1shot.md) | Omniglot | transductive | 97.71" in maml
    assert re.search(r"^- `\w+`.*: \w", maml, re.M)
    assert "Choose it where the adapted network must be your own" in maml
    folder = pages["benchmarks/TextFolderDataModule.md"]
    assert "Choose it where the data are your own." in folder
    for name, text in pages.items():  # of those without a record too
        if name.startswith(("learners/", "benchmarks/")) and "index" not in name:
            assert re.search(r"^Choose it where \w.+\.$", text, re.M), name
            assert re.search(r"^Example:\n\n```sh\n.*fewshot (?:fit|test) -", text, re.M), name
    assert "omniglot/maml_5way1shot.md" in pages["benchmarks/OmniglotDataModule.md"]


def test_the_public_names_without_a_page_of_their_own_are_on_one(pages: dict[str, str]) -> None:
    text = pages["api.md"]
    listed = set(re.findall(r"^## `(\w+)`$", text, re.M))
    elsewhere = {entry.name for entry in (*learners(), *benchmarks())}
    assert listed == set(public_names("fewshot")) - elsewhere
    assert "MLP(" in text
    assert "Adapters()" not in text  # it has no arguments of its own
    assert api_page.described("MAML", "fewshot.cli.catalogue") == ""
