"""What docstrings and pages show behind `>>>` gives what stands below it."""

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text()
    for folder, kind in (("fewshot", "py"), ("docs", "md"))
    for path in sorted((ROOT / folder).rglob(f"*.{kind}"))
    if "docs/classes" not in str(path)
}
SHOWN = [name for name, text in SOURCES.items() if re.search("^ *>>> ", text, re.M)]
NEEDS = {"fewshot/deployment/classifier.py": "sklearn"}
MET_FIRST = {
    "callbacks": ("evaluate", "trainer"),
    "datamodules": ("base",),
    "deployment": ("classifier", "load", "pretrained"),
    "episodes": ("distributions", "streams", "types"),
    "functional": ("episodes", "implicit", "rules", "steps", "weights"),
    "learners": ("base",),
}


class OfFences(doctest.DocTestParser):
    """Reads examples in fences, whose ends are no output."""

    def parse(self, string: str, name: str = "<string>") -> list[str | doctest.Example]:
        return super().parse(re.sub(r"^ *```\w*$", "", string, flags=re.M), name)


def failures(name: str) -> tuple[int, int]:
    """How many examples of a file fail, of how many."""
    if name.endswith(".md"):
        found = [OfFences().get_doctest(SOURCES[name], {}, name, name, 0)]
    else:
        module = importlib.import_module(name.removesuffix(".py").replace("/", "."))
        found = doctest.DocTestFinder(parser=OfFences()).find(module)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for test in found:
        runner.run(test)
    return runner.failures, runner.tries


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_is_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    monkeypatch.chdir(tmp_path)
    failed, tried = failures(name)
    assert tried >= 1
    assert failed == 0


def test_what_a_user_meets_first_is_shown() -> None:
    wanted = {f"fewshot/{room}/{name}.py" for room, names in MET_FIRST.items() for name in names}
    assert wanted - {*SHOWN} == set()
