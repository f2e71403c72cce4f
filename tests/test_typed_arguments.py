"""Type checkers know the arguments of every public class, those too that it hands on."""

import importlib.util
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typed_arguments import TARGET, is_abstract, stub

import fewshot
from fewshot.lazy import public_names

ROOT = Path(__file__).resolve().parents[1]
CLASSES = [
    name
    for name in sorted(public_names("fewshot"))
    if inspect.isclass(kind := getattr(fewshot, name)) and not is_abstract(kind)
]
WRONG = [f"fewshot.{name}(inner_stpes=3)" for name in CLASSES]
"""One wrong argument for each class."""
BAD_VALUES = ["fewshot.MAML(net, episode_parallel='fast')", "fewshot.GlyphsDataModule(way='five')"]
RIGHT = ["fewshot.MAML(net, inner_steps=3, episode_parallel='vmap', gradient_clip=1.0)"]
BEFORE = ["import fewshot", "net = fewshot.MLP(1)"]


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """All calls, one a line."""
    path = tmp_path / "wrong.py"
    path.write_text("\n".join([*BEFORE, *WRONG, *BAD_VALUES, *RIGHT]))
    return path


def by_call(found: list[tuple[int, str]]) -> dict[str, str]:
    """What is said of a call, from numbers of lines and messages."""
    lines = [*BEFORE, *WRONG, *BAD_VALUES, *RIGHT]
    said: dict[str, str] = {}
    for number, message in found:
        said[lines[number - 1]] = f"{said.get(lines[number - 1], '')}\n{message}"
    return said


def check(said: dict[str, str]) -> None:
    """Every wrong call is named, and no right one."""
    assert [call for call in WRONG if '"inner_stpes"' not in said.get(call, "")] == []
    assert {*said} == {*WRONG, *BAD_VALUES}


def test_what_is_written_down_is_what_the_classes_take() -> None:
    assert TARGET.read_text() == stub(), "run `make arguments`"


def test_there_are_calls_of_every_kind_of_class() -> None:
    assert {"MAML", "GlyphsDataModule", "Conv4", "Trainer", "FewShotClassifier"} <= {*CLASSES}
    assert len(CLASSES) > 120


def test_wrong_arguments_are_named_by_mypy(script: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file=", f"--cache-dir={script.parent}", "--ignore-missing-imports",
         "--no-site-packages",
         "--follow-imports=silent", str(script)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = re.findall(r"wrong\.py:(\d+): error: (.*)", done.stdout)
    check(by_call([(int(number), message) for number, message in found]))
    assert (
        'Unexpected keyword argument "inner_stpes" for "MAML"; did you mean "inner_steps"?'
        in done.stdout
    )


def test_wrong_arguments_are_named_by_pyright(script: Path) -> None:
    if importlib.util.find_spec("pyright") is None:
        pytest.skip("pyright is not installed (pip install 'pyright[nodejs]')")
    settings = {"include": [script.name], "extraPaths": [str(ROOT)], "typeCheckingMode": "basic"}
    (script.parent / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"],
        cwd=script.parent, capture_output=True, text=True, check=False,
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"},
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    errors = [(one["range"]["start"]["line"] + 1, one["message"]) for one in found]
    check(by_call(errors))
