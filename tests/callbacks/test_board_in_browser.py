"""TensorBoard in a real browser: what stands on its tabs for who opens it on two runs."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import browser
from two_runs import two_runs

__all__ = ["browser", "two_runs"]  # fixtures
PATIENCE = 30  # seconds that a tab may take
TEXT = """
const found = [];
function hidden(node) {
  return node instanceof Element && getComputedStyle(node).display !== 'contents'
    && !node.checkVisibility({visibilityProperty: true});
}
function walk(node) {
  if (node.nodeType === Node.TEXT_NODE) { found.push(node.textContent.trim()); return; }
  if (['STYLE', 'SCRIPT', 'TEMPLATE'].includes(node.nodeName) || hidden(node)) return;
  if (node.shadowRoot) { walk(node.shadowRoot); return; }  // its slots have the children
  if (node.nodeName === 'IFRAME') { walk(node.contentDocument.body); return; }
  const slotted = node.nodeName === 'SLOT' && node.assignedNodes();
  (slotted && slotted.length ? slotted : node.childNodes).forEach(walk);
}
walk(document.body);
return found.filter(Boolean).join('\\n').replaceAll('\\n/', '/');
"""
"""What is to be read on the page, in its shadows and frames; a tab that was left is hidden."""


@pytest.fixture(scope="module")
def address(two_runs: Path) -> Iterator[str]:
    """Of TensorBoard, on the folder of both runs."""
    command = [sys.executable, "-m", "tensorboard.main", "--port=0", "--host=localhost"]
    server = subprocess.Popen([*command, f"--logdir={two_runs}"], stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    try:
        found = (re.search(r" at (http://\S+)", line) for line in server.stderr)
        yield next(match[1] for match in found if match)
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


def shown(browser: Any, address: str, tab: str, *expected: str) -> str:
    """What stands on a tab, once it has what is expected."""
    from selenium.common.exceptions import TimeoutException
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"{address}#{tab}")
    try:
        WebDriverWait(browser, PATIENCE, 0.2).until(
            lambda driver: all(word in driver.execute_script(TEXT) for word in expected)
        )
    except TimeoutException:
        found = browser.execute_script(TEXT)
        missing = [word for word in expected if word not in found]
        pytest.fail(f"{tab} does not show {missing}, but:\n{found}")
    return str(browser.execute_script(TEXT))


RUNS = ("prototypicalnetwork-glyphs-5way1shot-0", "maml-glyphs-5way1shot-0")


def test_time_series_begin_with_accuracy(browser: Any, address: str) -> None:
    charts = [f"accuracy/{name}" for name in ("best_val", "test", "train", "val")]
    text = shown(browser, address, "timeseries", *RUNS, *charts)
    lines = [line for line in text.splitlines() if re.fullmatch(r"\w+/\w+", line)]
    assert lines[:4] == charts


def test_scalars_are_few_groups_of_which_accuracy_is_open(browser: Any, address: str) -> None:
    text = shown(browser, address, "scalars", *RUNS, "accuracy/val")
    groups = ["accuracy", "episodes_per_second", "loss"]
    assert [line for line in text.splitlines() if line in (*groups, "test", "val")] == groups
    for gone in ("epoch\n", "hp_metric", "test/", "/class/"):
        assert gone not in text, gone


def test_pictures(browser: Any, address: str) -> None:
    names = ("test/confusion", "test/episode", "test/histogram", "test/reliability")
    shown(browser, address, "images", *RUNS, *names)


@pytest.mark.parametrize("tab", ["histograms", "distributions"])
def test_spreads(tab: str, browser: Any, address: str) -> None:
    shown(browser, address, tab, *RUNS, "episodes/val_accuracy")


def test_text(browser: Any, address: str) -> None:
    words = ("seed_everything: 0", "test/figures", "test/accuracy", "test/classes")
    text = shown(browser, address, "text", *RUNS, *words)
    assert "text_summary" not in text


def test_hparams_compare_learners(browser: Any, address: str) -> None:
    columns = ("Learner", "accuracy/best_val", "accuracy/test")
    text = shown(browser, address, "hparams", *columns, "MAML", "PrototypicalNetwork")
    assert "hp_metric" not in text


def test_projector(browser: Any, address: str) -> None:
    shown(browser, address, "projector", "test_episode", "class", "role", "predicted")
