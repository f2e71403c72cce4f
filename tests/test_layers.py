"""The house holds: rooms know only what stands below them, and files are short enough to read."""

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "fewshot").rglob("*.py"))
}
ROOMS = {
    name: name.split(".")[1] for name in MODULES if name not in ("fewshot", "fewshot.__main__")
}
APART = {("learners", "datamodules")}  # a benchmark is below a learner in nothing but the picture


def levels() -> dict[str, int]:
    """How high each room stands in the picture of docs/architecture.md, its first block of code."""
    picture = (ROOT / "docs/architecture.md").read_text().split("```")[1]
    rows = [
        [n for n in re.findall(r"\w+", line) if n in ROOMS.values()]
        for line in picture.splitlines()
    ]
    return {name: i for i, row in enumerate(filter(None, reversed(rows))) for name in row}


def imports(module: str, at_once: bool = False) -> Iterator[str]:
    """The package's modules that `module` imports; `at_once`: those it needs to be imported itself."""
    package = module if MODULES[module].stem == "__init__" else module.rpartition(".")[0]
    nodes: list[ast.AST] = [ast.parse(MODULES[module].read_text())]
    while nodes:
        node = nodes.pop()
        if at_once and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if at_once and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            while name and name not in MODULES:
                name = name.rpartition(".")[0]
            if name in ROOMS:  # the package itself is lazy: it hands out names, whatever room's
                yield name


def test_every_import_points_down() -> None:
    height = levels()
    assert height.keys() == set(ROOMS.values()), "the picture must show every room"
    assert [
        f"{module} imports {other}"
        for module, room in ROOMS.items()
        for other in sorted(set(imports(module)))
        if room != ROOMS[other]
        and not (height[room] == height[ROOMS[other]] == 0)  # the ground: anyone may use it
        and (height[room] <= height[ROOMS[other]] or (room, ROOMS[other]) in APART)
    ] == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    tuple(
        TopologicalSorter({name: set(imports(name, at_once=True)) for name in ROOMS}).static_order()
    )


def test_few_modules_lie_flat() -> None:
    assert len(list((ROOT / "fewshot").glob("[!_]*.py"))) <= 6


@pytest.mark.parametrize("name", MODULES)
def test_a_file_is_short(name: str) -> None:
    most = {"fewshot.learners.base": 230, "fewshot.learners.optimization.base": 200}
    lines = MODULES[name].read_text().splitlines()
    assert len(lines) <= most.get(name, 300)
    assert [line for line in lines if len(line) > 100] == []
