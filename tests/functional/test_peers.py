"""The four problems of benchmarks/functional.py: every contestant has the same gradient."""

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks/functional.py"


@pytest.fixture(scope="module")
def bench() -> Any:
    pytest.importorskip("higher")
    pytest.importorskip("torchopt")
    spec = importlib.util.spec_from_file_location("bench_functional", FILE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["MAML", "implicit gradients", "rates", "reweighting"])
@pytest.mark.parametrize("contestant", ["ours by vmap", "higher", "torchopt"])
def test_gradients_are_those_of_the_peers(bench: Any, name: str, contestant: str) -> None:
    difference = bench.largest_difference(name, contestant)
    if contestant == "torchopt" and name == "rates":
        assert difference is None
    elif contestant == "torchopt" and name == "MAML":
        assert math.isnan(difference), "a dead unit's root has no derivative there"
    else:
        assert difference < 1e-9


def test_the_table_is_printed(
    bench: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "PROBLEMS", {"reweighting": bench.reweighting})
    monkeypatch.setattr(sys, "argv", ["functional.py", "--repeats", "1"])
    bench.main()
    printed = capsys.readouterr().out
    assert all(who in printed for who in ("ours by vmap", "higher", "torchopt"))
