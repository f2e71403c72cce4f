"""The canary of a new torch: what the package uses of its insides, and that nothing else does.

When torch has a new release, run this first; raise the bounds once it and the other tests pass.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import fewshot
from fewshot.engine.compiling.torch_internals import (
    USED,
    internal,
    missing,
    requirement,
    warn_if_untested,
)
from fewshot.errors import FewshotError

PACKAGE = Path(fewshot.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TABLE = "engine/compiling/torch_internals.py"


def test_torch_has_all_that_is_used_of_its_insides() -> None:
    gone = "; ".join(missing())
    assert not gone, f"torch {torch.__version__} has taken away: {gone}"


def private(tree: ast.AST) -> Iterator[str]:
    """The names in torch that begin with an underscore, or are experimental."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [ast.unparse(node)]
        for name in names:
            if re.match(r"torch\.(\w+\.)*(_[a-zA-Z]|experimental)", name):
                yield name


def test_nothing_else_uses_them() -> None:
    found = {
        name: names
        for name, path in FILES.items()
        if name != TABLE and (names := set(private(ast.parse(path.read_text()))))
    }
    assert not found
    assert set(private(ast.parse("from torch._C import x; import torch._a; torch.b._c"))) == {
        "torch._C.x", "torch._a", "torch.b._c"
    }  # fmt: skip


def asked(tree: ast.AST) -> set[str]:
    """What is asked for by `internal`."""
    calls = (
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "internal"
    )
    return {str(ast.literal_eval(call.args[0])) for call in calls}


def test_all_that_is_declared_is_used_and_the_other_way_round() -> None:
    sources = [path.read_text() for name, path in FILES.items() if name != TABLE]
    found = set().union(*(asked(ast.parse(source)) for source in sources))
    assert found <= set(USED)
    for name in set(USED) - found:  # options, which are set by name
        option = name.partition(".config.")[2]
        assert option, f"nobody uses {name}"
        assert any(re.search(rf'\b{option}("|=)', source) for source in sources), name


def test_importing_loads_no_compiler() -> None:
    for name, path in FILES.items():
        outside = [
            node
            for node in ast.parse(path.read_text()).body
            if not isinstance(node, ast.FunctionDef | ast.ClassDef)
        ]
        heavy = set().union(*map(asked, outside))
        assert not {n for n in heavy if re.match(r"torch\._(dynamo|inductor)\b", n)}, name


def test_what_is_gone_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torch._gone.thing", "torch._guards.gone"):
        monkeypatch.setitem(USED, name, "a reason")
    assert missing() == ["torch._gone.thing (a reason)", "torch._guards.gone (a reason)"]
    with pytest.raises(
        FewshotError,
        match=r"^torch \S+ has no torch\._guards\.gone, which fewshot needs for a reason; install"
        r" torch>=2\.6,<2\.16$",
    ):
        internal("torch._guards.gone")


def test_the_bounds_are_those_of_the_package() -> None:
    project = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'"{requirement()}"' in project


@pytest.mark.parametrize("version", ["2.5.1", "2.16.0", "2.16.0a0+git123", "3.0.0"])
def test_another_torch_is_warned_of_once(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    warn_if_untested.cache_clear()
    with pytest.warns(UserWarning, match=r"tests/test_torch_internals\.py") as warnings:
        warn_if_untested()
    warn_if_untested()  # no more, or it would be an error
    assert [str(warning.message) for warning in warnings] == [
        f"torch {version} is untested, fewshot is for torch>=2.6,<2.16: compile may fail; run"
        " `pytest tests/test_torch_internals.py`, which names what is gone"
    ]
    warn_if_untested.cache_clear()


@pytest.mark.parametrize("version", ["2.6.0", "2.14.1+cpu", "2.15.2.dev20260101"])
def test_a_torch_inside_of_the_bounds_is_not(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "__version__", version)
    warn_if_untested.cache_clear()
    warn_if_untested()
