"""Print what the house of the package is held to: how it is laid out, and what its commands cost.

    python benchmarks/house.py
    python benchmarks/house.py --root OTHER_CHECKOUT      # to compare with another state of it

Seconds are CPU seconds of whole processes, the least of three; memory is the largest a process had.
The other checkout runs with the packages of this Python.
"""

import argparse
import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from importlib.util import resolve_name
from pathlib import Path

COMMANDS = (
    ("--version",),
    ("list",),
    ("rank", "no-run", "no-other"),
    ("summary", "no-run", "no-other"),
    ("rnak",),
    ("fit", "--confg", "x"),
    ("fit", "--trainer.max_epohcs", "3"),
)
FIRST_STEP = """
import importlib, os, sys
try:
    program = importlib.import_module("fewshot.cli.main")
except ModuleNotFoundError:  # before the rooms
    program = importlib.import_module("fewshot.main")
from fewshot.learners.base import MetaLearner
step = MetaLearner.training_step
def once(self, *args, **kwargs):
    step(self, *args, **kwargs)
    os._exit(0)
MetaLearner.training_step = once
sys.exit(program.main(sys.argv[1:]))
"""
"""`fewshot` until the first meta-step is done."""
GLYPHS = (
    *("fit", "--model=MAML", "--model.backbone=Conv4", "--data=GlyphsDataModule"),
    *("--trainer.max_epochs=1", "--trainer.logger=false", "--trainer.enable_checkpointing=false"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.enable_progress_bar=false"),
)
LONGEST = 100  # characters in a line


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--root", type=Path, default=here, help="the checkout that is measured")
    root: Path = parser.parse_args().root.resolve()
    files = sorted((root / "fewshot").rglob("*.py"))
    lines = {file: file.read_text(encoding="utf-8").splitlines() for file in files}
    lengths = {str(file.relative_to(root / "fewshot")): len(text) for file, text in lines.items()}
    every = [line for text in lines.values() for line in text]
    flat = [file for file in (root / "fewshot").glob("*.py") if not file.name.startswith("__")]
    wrong, circle = against_the_order(root, files)
    longest = max(lengths, key=lambda name: lengths[name])
    show("modules that lie flat in fewshot/", len(flat))
    show("imports against the order: pairs of rooms", len(wrong), ", ".join(sorted(wrong)))
    show("modules in circles of imports", circle)
    show("longest file, lines", lengths[longest], longest)
    for name in ("learners/base.py", "learners/optimization/base.py"):
        show(f"{name}, lines", lengths[name])
    share = sum(len(line) > LONGEST for line in every) / len(every)
    show(f"lines over {LONGEST} characters", f"{100 * share:.1f} %")
    show("import fewshot", *cost(root, "-c", "import fewshot"))
    for command in COMMANDS:
        show(f"fewshot {' '.join(command)}", *cost(root, "-m", "fewshot", *command))
    show("fewshot fit, to its first step on Glyphs", *cost(root, "-c", FIRST_STEP, *GLYPHS))


def show(what: str, value: object, more: str = "") -> None:
    """Print a figure."""
    print(f"{what:<45} {value!s:>10}  {more}".rstrip(), flush=True)


def cost(root: Path, *command: str) -> tuple[str, str]:
    """The CPU seconds and the megabytes of a Python process with the package in `root`."""
    environment = {**os.environ, "PYTHONPATH": str(root)}
    seconds, megabytes = [], []
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            _, _, used = os.wait4(process.pid, 0)
            process.returncode = 0  # it has been waited for
        seconds.append(used.ru_utime + used.ru_stime)
        megabytes.append(used.ru_maxrss / 1024)
    return f"{min(seconds):.2f} s", f"{max(megabytes):.0f} MB"


def against_the_order(root: Path, files: list[Path]) -> tuple[set[str], int]:
    """The pairs of rooms that import against the order, and the modules in circles of imports."""
    modules = {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): file
        for file in files
    }
    graph = {name: set(imports(name, file, modules)) for name, file in modules.items()}
    height = heights(root, {room_of(name) for name in modules})
    wrong = {
        f"{room_of(name)} -> {room_of(other)}"
        for name, others in graph.items()
        for other in others
        if room_of(name) != room_of(other)
        and height.get(room_of(other), -1) >= height.get(room_of(name), len(modules))
        and height[room_of(other)] > 0  # the ground: anyone may use it
    }
    return wrong, sum(name in reached(graph, name) for name in graph)


def heights(root: Path, rooms: set[str]) -> dict[str, int]:
    """How high a room stands by the first picture of docs/architecture.md, or by its first list.

    In the picture of today a row stands above the next; the list of before had a file or a folder a
    line, each of which knows what stands above it in the list.
    """
    text = (root / "docs/architecture.md").read_text(encoding="utf-8").split("```")[1]
    listed = re.findall(r"(?m)^  (\w+)(?:\.py|/) ", text)
    if listed:
        return {room: place for place, room in enumerate(listed, 1)}
    rows = [
        [name for name in re.findall(r"\w+", row) if name in rooms] for row in text.splitlines()
    ]
    return {name: place for place, row in enumerate(filter(None, reversed(rows))) for name in row}


def room_of(module: str) -> str:
    """The folder or the file right in the package that a module belongs to; "" for the package."""
    return f"{module}.".split(".")[1]


def imports(module: str, file: Path, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules that one imports, wherever in it; the package itself only hands out names."""
    package = module if file.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            names = [f"{source}.{alias.name}" for alias in node.names]
        for name in names:
            while name and name not in modules:
                name = name.rpartition(".")[0]
            if "." in name:
                yield name


def reached(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """What `start` imports, and what that imports, and so on."""
    found: set[str] = set()
    open_ends = [start]
    while open_ends:
        for other in graph[open_ends.pop()] - found:
            found.add(other)
            open_ends.append(other)
    return found


if __name__ == "__main__":
    main()
