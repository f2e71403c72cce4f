"""The leaderboard in a real browser: its menus leave what is chosen."""

from pathlib import Path
from typing import Any

import leaderboard
import pytest
from browsers import browser
from markdown_it import MarkdownIt  # which Rich brings

__all__ = ["browser"]  # a fixture
SCRIPT = Path(leaderboard.__file__).parents[1] / "static/leaderboard.js"
VISIBLE = """
const seen = (node) => node.checkVisibility();
return {
  groups: [...document.querySelectorAll('h2')].filter(seen).map((node) => node.textContent),
  rows: [...document.querySelectorAll('tbody tr')].filter(seen).map(
    (row) => [...row.cells].map((cell) => cell.textContent)),
};
"""


@pytest.fixture
def opened(browser: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Any:
    """A page of the results with the site's script, a section a heading as the site has them."""
    html = MarkdownIt().enable("table").render(leaderboard.pages()[request.param])
    first, *sections = html.split("<h2>")
    body = first + "".join(f"<section><h2>{section}</section>" for section in sections)
    page = tmp_path / "page.html"
    page.write_text(
        f"<!doctype html><meta charset='utf-8'><script>{SCRIPT.read_text()}</script>{body}"
    )
    browser.get(page.as_uri())
    return browser


def chosen(browser: Any, label: str, value: str) -> Any:
    """What is to be seen once a value of a menu is chosen."""
    from selenium.webdriver.support.ui import Select

    menu = browser.find_element("css selector", f"select[aria-label={label}]")
    Select(menu).select_by_visible_text(value)
    return browser.execute_script(VISIBLE)


@pytest.mark.parametrize("opened", ["README.md"], indirect=True)
def test_benchmarks_and_learners_are_chosen(opened: Any) -> None:
    whole = opened.execute_script(VISIBLE)
    seen = chosen(opened, "benchmark", "Omniglot")
    assert seen["groups"] == ["Omniglot"]
    seen = chosen(opened, "learner", "MAML")
    # a record's further rows leave the learner out
    assert {row[1] for row in seen["rows"]} == {"MAML", ""}
    assert ["", "", "inductive"] in [row[:3] for row in seen["rows"]]
    seen = chosen(opened, "benchmark", "every benchmark")
    assert "Sinusoid" in seen["groups"]
    assert "CLINC150" not in seen["groups"], "of a benchmark without one its heading goes too"
    assert chosen(opened, "learner", "every learner") == whole


@pytest.mark.parametrize("opened", ["by-learner.md"], indirect=True)
def test_the_page_by_learner_has_them_too(opened: Any) -> None:
    seen = chosen(opened, "benchmark", "Sinusoid")
    assert "MAML" in seen["groups"]
    assert {row[0] for row in seen["rows"]} == {"Sinusoid", ""}
    assert chosen(opened, "learner", "Reptile")["groups"] == ["Reptile"]


@pytest.mark.parametrize("opened", ["omniglot/maml_5way1shot.md"], indirect=True)
def test_another_page_has_no_menus(opened: Any) -> None:
    assert opened.find_elements("css selector", "select") == []
