"""The documentation stays short, is linked, and names files that exist."""

import pydoc
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DECISIONS = sorted((ROOT / "docs/decisions").glob("*.md"))
PAGES = [
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "docs/guide").glob("*.md"),
    *(ROOT / "docs/journal").glob("*.md"),
    *DECISIONS,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
]
FOLDERS = "fewshot|tests|docs|benchmarks|configs"


def named(text: str) -> list[str]:
    """The paths in back quotes that look like files or folders of the repository."""
    return re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)


def linked(text: str) -> list[str]:
    """The files that a page links to, without those on the web."""
    return [
        target for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", text) if "://" not in target
    ]


def test_the_architecture_is_one_page() -> None:
    assert len((ROOT / "docs/architecture.md").read_text().split()) <= 900


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_a_decision_is_a_short_page_of_four_parts_in_the_index(page: Path) -> None:
    text = page.read_text()
    index = (ROOT / "docs/decisions/README.md").read_text()
    if page.name == "README.md":
        assert sorted(linked(text)) == sorted(p.name for p in DECISIONS if p != page)
        return
    assert len(text.split()) <= 250
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.M) == ["What", "Why", "Rejected", "Where"]
    assert named(text.rpartition("**Where.**")[2]), "it says where in the code"
    title = text.splitlines()[0].removeprefix("# ")
    assert f"[{title}]({page.name})" in index


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    missing = [name for name in named(text) if not (ROOT / name).exists()]
    missing += [name for name in linked(text) if not (page.parent / name).exists()]
    assert missing == []


def test_what_docstrings_and_pages_name_can_be_imported() -> None:
    files = [*PAGES, *(ROOT / "fewshot").rglob("*.py"), *(ROOT / "configs").rglob("*.yaml")]
    names = {
        name for file in files for name in re.findall(r"`(fewshot(?:\.\w+)+)`", file.read_text())
    }
    assert len(names) > 10
    assert sorted(name for name in names if pydoc.locate(name) is None) == []


def test_paths_and_links_are_found_in_a_text() -> None:
    text = "`fewshot/a.py` and `tests/`, not `a.py`; [one](b.md#c), [two](https://d/e)"
    assert named(text) == ["fewshot/a.py", "tests/"]
    assert linked(text) == ["b.md"]
