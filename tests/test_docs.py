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
    *(ROOT / "docs/notebooks").glob("*.md"),
    *(ROOT / "docs/journal").glob("*.md"),
    *DECISIONS,
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
]
FOLDERS = "fewshot|tests|docs|benchmarks|configs"


def named(text: str) -> list[str]:
    """The paths in back quotes that look like files or folders of the repository."""
    return re.findall(rf"`((?:{FOLDERS})/[\w./-]*)`", text)


def links(text: str) -> list[tuple[str, str]]:
    """The files that a page links to, "" for itself, and the headings; none that is on the web."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    found = re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", prose)
    return [(file, heading) for file, heading in found if "://" not in file]


def linked(text: str) -> list[str]:
    """The files that a page links to, without those on the web."""
    return [file for file, _ in links(text) if file]


def headings(text: str) -> set[str]:
    """The headings of a page, as links name them: GitHub's form, which the site has too."""
    found = re.findall(r"^#+ (.+)", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
    return {re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in found}


def dead_links(page: Path) -> list[str]:
    """What a page links to that is not there."""
    dead = []
    for file, heading in links(page.read_text()):
        target = page.parent / file if file else page
        if not target.exists() or (heading and heading not in headings(target.read_text())):
            dead.append(f"{page.name}: {file}#{heading}")
    return dead


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
    assert [name for name in named(page.read_text()) if not (ROOT / name).exists()] == []


def test_what_pages_link_to_is_there() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / ".github").rglob("*.md"), *(ROOT / "docs").rglob("*.md")]
    written = [page for page in pages if "classes" not in page.parts]  # those of the build
    assert len(written) > 200
    assert [link for page in written for link in dead_links(page)] == []


def test_a_dead_link_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A `title`, long\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# One\n[a](other.md#a-title-long) [b](#one) [c](none.md) [d](other.md#one) [e](#two)\n"
    )
    assert dead_links(page) == ["page.md: none.md#", "page.md: other.md#one", "page.md: #two"]


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
