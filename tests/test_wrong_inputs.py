"""Wrong inputs, more than five hundred: one line with the value and the remedy; none hangs.

Each must be refused: one that is accepted would do something else than it says.
"""

import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from test_arguments import CLASSES
from test_fuzz import no_hang
from wrong_files import configs, folders
from wrong_inputs import Case, commands, names, values

from fewshot.arguments import Range
from fewshot.cli.main import main
from fewshot.errors import FewshotError
from fewshot.hyperparameters import check_arguments, signatures

REMEDY = re.compile(r"(; .+|did you mean .+\?|choose from .+)$")
UNFORESEEN = "FEWSHOT_DEBUG"
LEFTOVERS = (
    "<class '",
    "Namespace(",
    "NestedArg",
    "Subtypes",
    "Union",
    "Traceback",
    "Parser key",
    "subclass",
)
"""What a parser says to its programmers."""
FAST = 10
"""Every such-th is tried in the fast tests."""


def every(folder: Path) -> Iterator[Case]:
    """All command lines; the files that they name are made in `folder`."""
    (folder / "configs").mkdir()
    (folder / "images").mkdir()
    yield from values()
    yield from names(70)
    yield from commands()
    yield from configs(folder / "configs")
    yield from folders(folder / "images")


def told(case: Case, capsys: pytest.CaptureFixture[str]) -> str:
    """What is said of a case."""
    capsys.readouterr()
    with no_hang():
        status = main(list(case.args))
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("fewshot: error: ")]
    assert (status, len(lines)) == (2, 1), f"{case}: {status} {error[-500:]}"
    assert "Traceback" not in error, case
    return lines[0].removeprefix("fewshot: error: ")


def faults(case: Case, line: str) -> list[str]:
    """What is wrong with a message."""
    found = [f"says {word}" for word in (*LEFTOVERS, UNFORESEEN) if word in line]
    found += ["no remedy"] * (REMEDY.search(line) is None)
    found += [f"does not show {case.shows}"] * (case.shows not in line)
    return found + ["too long"] * (len(line) > 600)


def check(
    cases: Iterator[Case], folder: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, str]:
    said = {" ".join(case.args): (case, told(case, capsys)) for case in cases}
    (folder / "said.txt").write_text("\n".join(f"{a}\n  {line}" for a, (_, line) in said.items()))
    wrong = {a: (line, bad) for a, (case, line) in said.items() if (bad := faults(case, line))}
    assert not wrong, "\n".join(f"{a}\n  {line}\n  {bad}" for a, (line, bad) in wrong.items())
    return {a: line for a, (_, line) in said.items()}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of the checkout is meant."""
    monkeypatch.chdir(tmp_path)


def test_one_of_ten_command_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    check(islice(every(tmp_path), 0, None, FAST), tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, FAST))
def test_the_other_command_lines(
    part: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(islice(every(tmp_path), part, None, FAST), tmp_path, capsys)


def test_there_are_five_hundred(tmp_path: Path) -> None:
    assert len(list(every(tmp_path))) >= 500


# ---------------------------------------------------------------------- calls in Python


def calls() -> Iterator[tuple[type, str, Any]]:
    """Arguments of every class: of another kind, out of range, no number, no choice."""
    for cls in CLASSES:
        for parameter in (p for level in signatures(cls) for p in level):
            for wrong in list(_wrong(parameter.annotation))[:2]:
                yield cls, parameter.name, wrong


def _wrong(hint: Any) -> Iterator[Any]:
    if get_origin(hint) is Annotated:
        yield math.nan
        for mark in get_args(hint)[1:]:
            if isinstance(mark, Range):
                yield mark.least - 1
    elif get_origin(hint) is Literal:
        yield "nonsense"
        yield 97
    elif hint is bool:
        yield "perhaps"


def test_calls_in_python() -> None:
    for cls, name, wrong in calls():
        with pytest.raises(FewshotError) as caught:
            check_arguments(cls, (), {name: wrong})
        line = str(caught.value)
        assert line.startswith(f"{name} is "), line
        assert REMEDY.search(line), line
        assert str(wrong) in line or f"{wrong:g}" in line, line
