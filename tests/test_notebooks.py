"""The site's notebooks: in its contents, readable, on public names, without outputs.

`make docs` executes them, here nothing runs.
"""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import notebooks
import pytest

import fewshot.functional
from fewshot.lazy import public_names

DOCS = Path(__file__).resolve().parents[1] / "docs"
FOLDER = DOCS / "notebooks"
NAMES = re.findall(r"^([\w-]+)$", (FOLDER / "index.md").read_text().split("```")[1], re.M)
PUBLIC = {
    "fewshot": {*public_names("fewshot")},
    "fewshot.functional": {*fewshot.functional.__all__},
    "fewshot.cli.main": {"main"},  # the program
}


def source(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def code(name: str) -> list[str]:
    return [lines for kind, lines in notebooks.cells(source(name)) if kind == "code"]


def used(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """The names of this package that a program imports or reads, with their modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module.partition(".")[0] == "fewshot":
                yield from ((node.module, of.name) for of in node.names)
        elif isinstance(node, ast.Import):
            inside = (of.name for of in node.names if of.name.startswith("fewshot."))
            yield from ((name, "") for name in inside)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "fewshot":
            yield "fewshot", node.attr


def test_all_are_in_the_sites_contents() -> None:
    assert len(NAMES) == 6
    assert {f"{name}.md" for name in (*NAMES, "index")} == {p.name for p in FOLDER.iterdir()}
    assert re.search(r"^notebooks/index$", (DOCS / "index.md").read_text(), re.M)


@pytest.mark.parametrize("name", NAMES)
def test_its_code_compiles_and_takes_public_names_alone(name: str) -> None:
    program = "\n".join(code(name))
    taken = {*used(ast.parse(program))}
    assert taken
    assert [of for of in taken if of[1] not in PUBLIC.get(of[0], set())] == []
    assert "plt.subplots" in program, "it draws a picture"


@pytest.mark.parametrize("name", NAMES)
def test_it_is_executed_and_leads_to_its_file_and_on(name: str) -> None:
    text = source(name)
    assert re.match(r"---\nfile_format: mystnb\nkernelspec:\n  name: python3\n---\n\n# ", text)
    assert text.count("```{") == len(code(name)), "nothing but cells of code, and no outputs"
    assert f"{{download}}`Open it in Jupyter <../classes/notebooks/{name}.ipynb>`" in text
    last = text.rpartition("\n## ")[2]
    assert last.startswith("What to try next\n")
    assert len(re.findall(r"\]\((?:\.\./)?[\w/-]+\.md\)", last)) >= 2


@pytest.mark.parametrize("name", NAMES)
def test_no_figure_is_typed(name: str) -> None:
    prose = "\n".join(lines for kind, lines in notebooks.cells(source(name)) if kind == "markdown")
    assert re.findall(r"\d[\d.]* ?(?:%|points|seconds|minutes)", prose) == []


def test_the_files_for_jupyter_have_all_cells_and_no_outputs(tmp_path: Path) -> None:
    notebooks.write(FOLDER, tmp_path)
    assert {p.stem for p in tmp_path.iterdir()} == {*NAMES}
    for name in NAMES:
        made = json.loads((tmp_path / f"{name}.ipynb").read_text(encoding="utf-8"))
        assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
        ids = [cell["id"] for cell in made["cells"]]
        assert len({*ids}) == len(ids)
        runs = [cell for cell in made["cells"] if cell["cell_type"] == "code"]
        assert [cell["source"] for cell in runs] == code(name)
        assert all((cell["outputs"], cell["execution_count"]) == ([], None) for cell in runs)
        prose = [cell["source"] for cell in made["cells"] if cell["cell_type"] == "markdown"]
        assert prose[0].startswith("# ")
        assert not re.search(r"\{\w+\}`|\]\((?!\w+:)|^---$", "\n".join(prose), re.M)


def test_cells_are_told_apart() -> None:
    text = "---\na: b\n---\n\n# T\n\n```{code-cell}\n:tags: [x]\nf(\n)\n```\n\n```sh\nls\n```\n"
    assert notebooks.cells(text) == [
        ("markdown", "# T"),
        ("code", "f(\n)"),
        ("markdown", "```sh\nls\n```"),
    ]
    line = "{download}`a <b>`, c.\nA {term}`d`, [e](f.md#g) and [h](https://i)."
    assert notebooks.plain(line) == "A d, e and [h](https://i)."
