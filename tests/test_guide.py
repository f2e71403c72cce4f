"""The guide: chapters of four parts, commands that are accepted, equations."""

import re
import shlex
from pathlib import Path

import pytest
from docutils.utils.math.latex2mathml import tex2mathml

from fewshot.cli.main import main

DOCS = Path(__file__).resolve().parents[1] / "docs"
GUIDE = DOCS / "guide"
CHAPTERS = re.findall(r"^([\w-]+)$", (GUIDE / "index.md").read_text().split("```")[1], re.M)
PARTS = ["The idea", "The equation", "The command", "What to look at"]
CHECKS = {"fit": "--print_config", "test": "--print_config", "sweep": "--dry_run"}
"""What makes a command read its configs and options, and do nothing else."""


def text(chapter: str) -> str:
    return (GUIDE / f"{chapter}.md").read_text()


def commands(page: str) -> list[list[str]]:
    blocks = re.findall(r"```sh\n(.*?)```", page, re.S)
    return [shlex.split(line) for b in blocks for line in b.replace("\\\n", " ").splitlines()]


def equations(page: str) -> list[str]:
    found = re.findall(r"\$\$(.+?)\$\$|(?<!\$)\$([^$\n]+)\$(?!\$)", page, re.S)
    return [block or line for block, line in found]


def status(args: list[str]) -> object:
    """What the program exits with."""
    try:
        return main(args)
    except SystemExit as end:  # of `--print_config`
        return end.code


def test_nine_chapters_are_the_guide() -> None:
    assert len(CHAPTERS) == 9
    assert {f"{name}.md" for name in (*CHAPTERS, "index")} == {p.name for p in GUIDE.glob("*.md")}
    for number, name in enumerate(CHAPTERS, 1):
        assert text(name).startswith(f"# {number}. ")
        assert re.findall(r"^## (.*)", text(name), re.M) == PARTS


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_its_commands_name_configs_and_options_that_exist(
    chapter: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands(text(chapter))
    for program, command, *args in commands(text(chapter)):
        assert program == "fewshot"
        if command in CHECKS:
            assert status([command, *args, CHECKS[command]]) == 0, capsys.readouterr().err
        else:  # its options are read before the runs, of which there are none
            assert (command, status([command, *args])) == ("compare", 2)
            assert "sweep" in capsys.readouterr().err


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_its_equations_need_no_network(chapter: str) -> None:
    assert equations(text(chapter))
    for equation in equations(text(chapter)):
        assert "<math" in tex2mathml(equation)


def test_terms_of_the_guide_are_in_the_glossary() -> None:
    glossary = (DOCS / "glossary.md").read_text()
    defined = re.findall(r"^([a-z][\w -]*)$", glossary, re.M)
    assert defined == sorted(defined)
    pages = [glossary, *map(text, CHAPTERS)]
    used = {term for page in pages for term in re.findall(r"{term}`([^`]*)`", page)}
    assert {"bilevel", "inner loop", "outer loop", "transductive"} <= used
    assert used <= {*defined}
