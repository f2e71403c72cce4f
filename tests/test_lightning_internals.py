"""The canary of a new Lightning: what the package uses of its insides, and that nothing else does.

When Lightning has a new release, run this first; raise the bound once it and the other tests pass.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import lightning as L
import pytest

import fewshot
from fewshot.learners import lightning_internals
from fewshot.learners.lightning_internals import PRIVATE, Private, missing

PACKAGE = Path(fewshot.__file__).parent
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
TABLE = "learners/lightning_internals.py"
NAMES = {private.name for private in PRIVATE if private.name.startswith("_")}


def test_lightning_has_all_that_is_used_of_its_insides() -> None:
    gone = "; ".join(missing())
    assert not gone, f"lightning {L.__version__} has taken away: {gone}"


def test_what_is_gone_is_named_with_its_purpose(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = (
        Private("lightning.pytorch", "Trainer", "_no_such_connector", "a test"),
        Private("lightning.pytorch", "NoSuchClass", "fit", "another"),
        Private("lightning.no_such_module", "Trainer", "fit", "a third"),
    )
    monkeypatch.setattr(lightning_internals, "PRIVATE", (*PRIVATE, *gone))
    assert missing() == [
        "lightning.pytorch.Trainer._no_such_connector: a test",
        "lightning.pytorch.NoSuchClass.fit: another",
        "lightning.no_such_module.Trainer.fit: a third",
    ]


def used(tree: ast.AST) -> Iterator[str]:
    """The private names of the table that code reads or sets on anything, and private imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            yield node.attr
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lightning"):
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))


def test_nothing_else_uses_them() -> None:
    found = {
        name: names
        for name, path in FILES.items()
        if name != TABLE and (names := set(used(ast.parse(path.read_text()))))
    }
    # what a command line of its own overrides has to be called as Lightning calls it
    overridden = {"_parser", "_instantiate_trainer", "_prepare_subcommand_kwargs"}
    assert found.pop("cli/lightning.py") <= overridden
    assert not found
    assert set(used(ast.parse("self._trainer; from lightning.x import _Y"))) == {"_trainer", "_Y"}
