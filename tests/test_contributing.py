"""The examples of CONTRIBUTING.md run as they stand there, from modules of a user's own."""

import importlib
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import fit, results

from fewshot import MAML, PrototypicalNetwork
from fewshot.cli.main import main
from fewshot.hyperparameters import parameter_names

TEXT = (Path(__file__).resolve().parents[1] / "CONTRIBUTING.md").read_text()
SECTIONS = dict(re.findall(r"^## Add a (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S))


def block(section: str, language: str) -> str:
    """The one block of code of a section in a language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], re.M | re.S)
    assert isinstance(found, str)
    return found


@pytest.fixture
def module(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The name of the module that is a section's example, which can be imported."""
    code = block(request.param, "python")
    name = code.splitlines()[0].removeprefix("# ").removesuffix(".py")
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    yield name
    sys.modules.pop(name, None)


def options(section: str) -> list[str]:
    """What the section's command gives `fewshot fit`."""
    (line,) = block(section, "sh").splitlines()
    start = ["PYTHONPATH=.", "fewshot", "fit"]
    words = shlex.split(line)
    assert words[:3] == start
    return words[3:]


def test_each_thing_has_an_example_of_a_screen() -> None:
    assert list(SECTIONS) == ["learner", "benchmark", "backbone", "task kind"]
    for section in SECTIONS:
        assert len(block(section, "python").splitlines()) <= 36
        assert max(map(len, block(section, "python").splitlines())) <= 100


@pytest.mark.parametrize(
    ("module", "section", "cls", "expected"),
    [
        ("learner", "learner", "CosineMeans", {"learner": "CosineMeans", "backbone": "Conv4"}),
        ("benchmark", "benchmark", "CloudsDataModule", {"benchmark": "Clouds", "way": 5}),
        ("backbone", "backbone", "ResidualMLP", {"backbone": "ResidualMLP"}),
        ("task kind", "task kind", None, {"monitor": {"metric": "near", "mode": "max"}}),
    ],
    indirect=["module"],
)
def test_the_example_trains_and_is_tested_from_the_command_line(
    module: str,
    section: str,
    cls: str | None,
    expected: dict[str, object],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = fit(tmp_path, *options(section), "--data.meta_batch_size=4")
    found = results(run)
    assert {name: found.get(name) for name in expected} == expected
    assert found["metrics"]["loss"]["mean"] > 0
    if section == "task kind":
        assert found["units"] == {"near": "%"}
        assert 0 <= found["metrics"]["near"]["mean"] <= 1
    # the checkpoint holds where the class is, and builds it
    own = importlib.import_module(module)
    learners: dict[str, Any] = {"benchmark": PrototypicalNetwork}
    if section == "learner":
        learners[section] = own.CosineMeans
    learner = learners.get(section, MAML).load_from_checkpoint(run / "checkpoints/best.ckpt")
    weights = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(learner.state_dict()[name], weights[name]) for name in weights)
    # and every argument has its help
    if cls is not None:
        part = {"learner": "model", "benchmark": "data", "backbone": "model.backbone"}[section]
        with pytest.raises(SystemExit, match="0"):
            main(["fit", "--model=MAML", f"--{part}.help", f"{module}.{cls}"])
        out = capsys.readouterr().out
        for name in parameter_names(getattr(own, cls)):
            assert f".{name} " in out
