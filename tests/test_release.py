"""What a release needs says the same everywhere, and README works where the repository is not."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from release import COMMANDS, absolute, python_of, with_urls

import fewshot
from fewshot.extras import DISTRIBUTION

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()

CONDA = {"torch": "pytorch", "matplotlib": "matplotlib-base"}
"""Packages that conda-forge calls otherwise."""
OF_SIGNATURES = {"docstring_parser", "typeshed-client"}
"""What jsonargparse's extra `signatures` asks for, which conda knows no extras for."""


def yaml_of(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text())


def dependencies() -> dict[str, str]:
    block = re.search(r"^dependencies = \[(.*?)^\]", PYPROJECT, flags=re.M | re.S)
    assert block is not None
    found = re.findall(r'^ *"([\w-]+)(?:\[\w+\])?([^"]*)"', block[1], flags=re.M)
    return dict(found)


def _stated(key: str) -> list[str]:
    found = re.search(rf"^{key} = (.+)$", PYPROJECT, flags=re.M)
    assert found is not None
    return re.findall(r'"(.+?)"', found[1])


def pythons() -> list[str]:
    return re.findall(r"Programming Language :: Python :: (3\.\d+)", PYPROJECT)


def test_name_and_version_are_the_same_everywhere() -> None:
    name, version = (
        re.search(rf'^{key} = "(.+?)"', PYPROJECT, flags=re.M) for key in ("name", "version")
    )
    assert name is not None
    assert version is not None
    assert name[1] == DISTRIBUTION
    assert version[1] == fewshot.__version__ == yaml_of("CITATION.cff")["version"]
    recipe = yaml_of("packaging/conda/recipe.yaml")
    assert recipe["package"]["name"] == DISTRIBUTION
    assert recipe["context"]["version"] == version[1]


def test_the_recipe_asks_for_what_the_package_asks_for() -> None:
    run = dict(
        line.split(" ", 1) if " " in line else (line, "")
        for line in yaml_of("packaging/conda/recipe.yaml")["requirements"]["run"]
    )
    assert run.pop("python") == re.findall(r'requires-python = "(.+)"', PYPROJECT)[0]
    assert {run.pop(name) for name in OF_SIGNATURES} == {""}
    assert run == {CONDA.get(name, name): bound for name, bound in dependencies().items()}
    assert len(run) >= 10


def test_torch_in_the_container_is_the_packages() -> None:
    bounds = dependencies()
    text = (ROOT / "Dockerfile").read_text()
    assert f'"torch{bounds["torch"]}" "torchvision{bounds["torchvision"]}"' in text
    copied = {
        name for line in re.findall(r"^COPY (.+) /source", text, re.M) for name in line.split()
    }
    assert all((ROOT / name).exists() for name in copied), copied
    # what the wheel is built of: without one of them building ends with an error
    built = re.findall(r'"fewshot\.\w+": "(\w+)"', (ROOT / "setup.py").read_text())
    named = [value for key in ("readme", "license-files") for value in _stated(key)]
    assert {"fewshot", "pyproject.toml", "setup.py", *built, *named} == copied
    extras = re.findall(r'^ARG EXTRAS="(.+)"', text, flags=re.M)[0].split(",")
    assert all(re.search(rf"^{extra} = \[", PYPROJECT, flags=re.M) for extra in extras)
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert f"AS {container['build']['target']}\n" in text


def test_the_workflow_does_what_ci_does_on_the_pythons_that_are_claimed() -> None:
    job = yaml_of(".github/workflows/ci.yml")["jobs"]["test"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert job["strategy"]["matrix"]["python"] == pythons()
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in pythons()


def test_the_oldest_python_is_claimed_and_pages_name_them_all() -> None:
    claimed = pythons()
    assert claimed == sorted(claimed, key=lambda python: int(python.removeprefix("3.")))
    assert _stated("requires-python") == [f">={claimed[0]}"]
    assert f'target-version = "py{claimed[0].replace(".", "")}"' in PYPROJECT
    assert re.findall(r"^ARG PYTHON=(.+)$", (ROOT / "Dockerfile").read_text(), re.M)[0] in claimed
    told = f"{', '.join(claimed[:-1])} and {claimed[-1]} are tested"
    for page in ("README.md", "docs/start.md"):
        text = " ".join((ROOT / page).read_text().split())
        assert f"Python {claimed[0]} or newer" in text, page
        assert told in text, page


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")), ids=lambda p: p.name
)
def test_forms_for_issues_have_what_the_site_asks_for(path: Path) -> None:
    form = yaml.safe_load(path.read_text())
    if path.name == "config.yml":
        assert form == {"blank_issues_enabled": True}
        return
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids)) > 0
    assert all(
        field["type"] in {"textarea", "input"} and field["attributes"]["label"]
        for field in form["body"]
    )


def test_every_link_of_readme_is_absolute_on_the_index() -> None:
    page = (ROOT / "README.md").read_text()
    moved = absolute(page, "https://host.org/someone/fewshot", "v1.0")
    links = re.findall(r"\]\(([^)]+)\)", moved)
    assert len(links) == len(re.findall(r"\]\(([^)]+)\)", page)) > 10
    assert all(link.startswith(("https://", "#")) for link in links), links
    assert "![" in page
    for picture in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", moved):
        assert picture.startswith("https://host.org/someone/fewshot/raw/v1.0/"), picture


def test_the_project_gets_its_addresses() -> None:
    changed = with_urls(PYPROJECT, "https://host.org/x", "v1.0")
    assert 'Changelog = "https://host.org/x/blob/v1.0/CHANGELOG.md"' in changed
    assert changed.index("[project.urls]") < changed.index("[project.scripts]")


def test_what_a_release_tries_stands_in_readme() -> None:
    page = (ROOT / "README.md").read_text()
    for arguments in COMMANDS[1:]:
        assert " ".join(("fewshot", *arguments)) in page, arguments
    compile(python_of(page), "README.md", "exec")
