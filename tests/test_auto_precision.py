"""`--trainer.precision auto`: what it becomes, for whom, and that it is said."""

import typing
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from commands import FEW, QUIET, fit, results
from jsonargparse import Namespace
from lightning import Trainer
from lightning.pytorch.accelerators import CUDAAccelerator

import fewshot
from fewshot.cli import precision
from fewshot.cli.catalogue import learners
from fewshot.cli.main import main
from fewshot.cli.precision import Choice, RunTrainer, decide_precision
from fewshot.learners import CNAPs, PrototypicalNetwork

RESULTS = Path(__file__).resolve().parents[1] / "docs/journal/measurements.md"
GLYPHS = (
    *("--model.backbone=Conv4", "--model.backbone.width=4", "--data=GlyphsDataModule"),
    *("--data.meta_batch_size=2", "--data.queries=2"),
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A machine of these instructions, which has a GPU that computes in bfloat16, or not, or none."""

    def make(flags: str | None, gpu: bool | None = None) -> None:
        monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: gpu is not None))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpu)
        if flags is not None:
            (tmp_path / "cpuinfo").write_text(f"model name : any\nflags\t\t: fpu {flags} sse\n")

    return make


def trainer(plugins: list[str] | None, accelerator: str) -> Namespace:
    """A Trainer's arguments as the parser has them."""
    given = None if plugins is None else [namespace(class_path=path) for path in plugins]
    return namespace(precision="auto", plugins=given, accelerator=accelerator)


def namespace(**values: Any) -> Namespace:
    return Namespace(**values)  # type: ignore[no-untyped-call]


class Changed(PrototypicalNetwork):
    """Somebody's own."""


@pytest.mark.parametrize(
    ("learner", "flags", "gpu", "accelerator", "expected"),
    [
        (PrototypicalNetwork, "avx512_bf16", None, "auto", "bf16-mixed, as PrototypicalNetwork is"),
        (PrototypicalNetwork, "amx_tile amx_bf16", None, "cpu", "bf16-mixed, as Prototypical"),
        (PrototypicalNetwork, "avx512f", None, "auto", "32-true, as this CPU has no instructions"),
        (PrototypicalNetwork, None, None, "auto", "32-true, as this CPU has no instructions"),
        (PrototypicalNetwork, "avx512f", True, "auto", "bf16-mixed, as"),
        (PrototypicalNetwork, "avx512_bf16", False, "gpu", "32-true, as this GPU does not"),
        (PrototypicalNetwork, "avx512_bf16", False, "cpu", "bf16-mixed, as"),
        (PrototypicalNetwork, "avx512_bf16", None, "tpu", "32-true, as it is not known how tpu"),
        (CNAPs, "avx512_bf16", True, "auto", "32-true, as CNAPs is not proven in bfloat16"),
        (Changed, "avx512_bf16", True, "auto", "32-true, as Changed is not proven in bfloat16"),
    ],
)
def test_what_auto_is(
    learner: type,
    flags: str | None,
    gpu: bool | None,
    accelerator: str,
    expected: str,
    machine: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine(flags, gpu)
    config = trainer(None, accelerator)
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        decide_precision(config, learner)
        assert config["precision"] == expected.partition(",")[0]
        decide_precision(config, learner)
    (record,) = caplog.records
    assert record.getMessage().startswith(f"precision auto: {expected}")


def test_a_run_says_it_and_records_it_and_is_the_same_twice(
    machine: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine("avx512_bf16")
    options = ("--model=PrototypicalNetwork", *GLYPHS, "--trainer.precision=auto")
    with caplog.at_level("INFO", "lightning.pytorch.utilities.rank_zero"):
        runs = [fit(tmp_path, *options) for _ in range(2)]
    assert "precision auto: bf16-mixed" in caplog.text
    assert results(runs[0])["precision"] == "bf16-mixed"
    assert yaml.safe_load((runs[0] / "config.yaml").read_text())["trainer"]["precision"] == (
        "bf16-mixed"
    )
    one, other = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for run in runs
    )
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert results(runs[0])["metrics"] == results(runs[1])["metrics"]


@pytest.mark.parametrize("listed", [False, True])
def test_a_plugin_beside_it_is_refused(
    listed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plugin: Any = {"class_path": "lightning.pytorch.plugins.DoublePrecision"}
    config = {"trainer": {"precision": "auto", "plugins": [plugin] if listed else plugin}}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    options = ("--model=PrototypicalNetwork", *GLYPHS, f"--config={tmp_path / 'run.yaml'}")
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *options, *FEW, *QUIET, root]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "fewshot: error: trainer.precision is auto, but trainer.plugins has DoublePrecision, which"
        " decides it too; leave one of them out"
    )


def test_another_plugin_beside_it_decides_nothing(machine: Any) -> None:
    machine("avx512_bf16")
    config = trainer(["lightning.pytorch.plugins.environments.LightningEnvironment"], "cpu")
    decide_precision(config, PrototypicalNetwork)
    assert config["precision"] == "bf16-mixed"


def test_the_choices_are_lightnings_and_auto() -> None:
    """A canary: those of a new Lightning are written down here."""
    lightnings = set(values(typing.get_type_hints(Trainer.__init__)["precision"]))
    assert set(values(Choice)) == (lightnings - {None, type(None)}) | {"auto"}
    with pytest.raises(AssertionError):
        RunTrainer(precision="auto")


def values(hint: Any) -> list[Any]:
    """The values of a union of literals."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    inner = typing.get_args(hint)
    return [value for part in inner for value in values(part)] if inner else [hint]


def test_who_is_proven_has_a_figure() -> None:
    """Of each the documented interval holds 0, is narrow, and the learner is far from chance."""
    table = RESULTS.read_text().partition("### bfloat16 against float32")[2]
    rows = {
        cells[0]: cells[1:]
        for line in table.splitlines()
        if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 3
    }
    named = [entry.name for entry in learners()]
    proven = [n for n in named if vars(getattr(fewshot, n)).get("proven_in_bfloat16", False)]
    assert {"PrototypicalNetwork", "R2D2", "Baseline"} == set(proven)
    for name in proven:
        accuracy, difference = rows[name]
        mean, width = (float(part) for part in difference.split("±"))
        assert abs(mean) <= width <= 3.5
        assert float(accuracy.removesuffix(" %")) > 50


def test_precision_auto_needs_a_name_that_the_error_gives(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--model=PrototypicalNetwork", *GLYPHS, "--trainer.precision=automatic")
    assert main(["fit", *options, f"--trainer.default_root_dir={tmp_path}"]) == 2
    assert "auto" in capsys.readouterr().err
