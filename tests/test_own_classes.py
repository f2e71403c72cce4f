"""Classes of a user's own module, by their import path; import paths that lead nowhere."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from commands import FEW, QUIET, fewshot, fit, results
from forks import python

from fewshot.cli.main import main
from fewshot.cli.named import named_classes, written

MODULE = '''
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewshot import MAML, MLP, Backbone, SinusoidDataModule


class WavesDataModule(SinusoidDataModule):
    """Waves that are cut off.

    Args:
        ceiling: where.
        **kwargs: those of `SinusoidDataModule`.
    """

    benchmark: ClassVar[str] = "Waves"
    facts: ClassVar[tuple[str, ...]] = ("ceiling", "rarely")

    def __init__(self, ceiling: float = 2.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ceiling = ceiling

    @property
    def rarely(self) -> int:
        raise AssertionError("nobody has asked for it")


class Learner(MAML):
    """MAML that knows where waves are cut off.

    Args:
        backbone: the network.
        task: of the benchmark.
        ceiling: of the benchmark.
        **kwargs: those of `MAML`.
    """

    def __init__(
        self, backbone: Backbone | nn.Module, task: dict[str, Any], ceiling: float, **kwargs: Any
    ) -> None:
        super().__init__(backbone, task=task, **kwargs)
        self.ceiling = ceiling


class Clipped(Backbone):
    """Another network's features, clipped.

    Args:
        inner: the other network.
        ceiling: of the benchmark.
    """

    def __init__(self, inner: Backbone, ceiling: float) -> None:
        super().__init__()
        self.inner, self.ceiling, self.out_features = inner, ceiling, inner.out_features

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x).clamp(max=self.ceiling)


class Layered(MLP):
    """An MLP that knows it too.

    Args:
        in_features: of the benchmark.
        ceiling: of the benchmark, where it has one.
        **kwargs: those of `MLP`.
    """

    def __init__(self, in_features: int, ceiling: float | None = None, **kwargs: Any) -> None:
        super().__init__(in_features, **kwargs)
        self.ceiling = ceiling


class Outer:
    class Inside(Layered):
        """A class in a class."""


class Nothing:
    """Neither a learner nor a benchmark nor a network."""


number = 3
'''


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """The name of a module in the working directory, which is new."""
    name = "own_" + str(abs(hash(request.node.name)))
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def command(own: str) -> tuple[str, ...]:
    return (
        f"--model={own}.Learner",
        f"--model.backbone={own}.Clipped",
        f"--model.backbone.inner={own}.Layered",
        f"--data={own}.WavesDataModule",
        "--data.meta_batch_size=4",
    )


def test_a_run(own: str, tmp_path: Path) -> None:
    run = fit(tmp_path, *command(own), "--data.ceiling=1.5")
    written = results(run)
    assert (written["benchmark"], written["learner"]) == ("Waves", "Learner")
    assert (run / "episode.png").is_file()
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["model"]["class_path"] == f"{own}.Learner"
    assert "ceiling" not in str(config["model"])
    assert config["data"]["init_args"]["ceiling"] == 1.5
    again = fewshot(
        "test",
        tmp_path / "again",
        f"--config={run}/config.yaml",
        f"--ckpt_path={run}/checkpoints/best.ckpt",
    )
    assert results(again)["metrics"] == written["metrics"]


@pytest.mark.parametrize("form", ["short", "long", "two configs", "option"])
def test_every_way_to_name_them(form: str, own: str, tmp_path: Path) -> None:
    network = {"class_path": f"{own}.Clipped", "init_args": {"inner": f"{own}.Layered"}}
    content = {
        "data": {"class_path": f"{own}.WavesDataModule", "init_args": {"meta_batch_size": 4}},
        "model": {"class_path": f"{own}.Learner", "init_args": {"backbone": network}},
    }
    args = ["--config=config.yaml"]
    if form == "short":
        content["data"] = f"{own}.WavesDataModule"  # type: ignore[assignment]
    elif form == "two configs":
        Path("first.yaml").write_text(yaml.safe_dump({"data": "GlyphsDataModule", "model": "MAML"}))
        args = ["--config", "first.yaml", "-c", "config.yaml"]
    elif form == "option":
        args = [f"--data={own}.WavesDataModule", "--model.class_path", f"{own}.Learner"]
        args += [
            "--model.init_args.backbone",
            str(yaml.safe_dump(network, default_flow_style=True)),
        ]
    Path("config.yaml").write_text(yaml.safe_dump(content))
    named = named_classes(["fit", *args])
    assert {key: cls.__name__ for key, cls in named.items()} == {
        "data": "WavesDataModule",
        "model": "Learner",
        "model.init_args.backbone": "Clipped",
        "model.init_args.backbone.init_args.inner": "Layered",
    }
    run = fit(tmp_path, *args, "--test_after_fit=false", "--data.meta_batch_size=4")
    assert (run / "checkpoints/best.ckpt").is_file()


def test_a_network_of_a_learner_of_the_package(own: str, tmp_path: Path) -> None:
    args = ("--model=MAML", f"--model.backbone={own}.Outer.Inside", "--data=SinusoidDataModule")
    fit(tmp_path, *args, "--data.meta_batch_size=4", "--test_after_fit=false")


@pytest.mark.parametrize(
    ("options", "described"),
    [
        (
            ["--model.help", "OWN.Learner"],
            ["--model.ceiling ", "--model.inner_lr ", "--model.task "],
        ),
        (["--data.help", "OWN.WavesDataModule"], ["--data.ceiling ", "--data.shot "]),
        (
            ["--model=OWN.Learner", "--model.backbone.help", "OWN.Layered"],
            ["--model.backbone.hidden "],
        ),
    ],
)
def test_help(
    options: list[str], described: list[str], own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *(option.replace("OWN", own) for option in options)])
    assert stop.value.code in (0, None)
    out = capsys.readouterr().out
    for option in described:
        assert option in out[out.index("Help for") :]


Refusal = Callable[..., str]


@pytest.fixture
def refusal(own: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Run a command that must fail; gives its one line."""

    def refuse(*args: str, command: str = "fit") -> str:
        (tmp_path / f"{own}_broken.py").write_text("raise RuntimeError('a line\\nanother')")
        (tmp_path / f"{own}_needs.py").write_text("import no_such_module")
        capsys.readouterr()
        assert main([command, *args]) == 2
        error = capsys.readouterr().err.splitlines()
        assert [line for line in error if line.startswith("fewshot: error: ")] == error[-1:]
        return error[-1].removeprefix("fewshot: error: ")

    return refuse


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("OWN.Nothing", "model is OWN.Nothing, which is no learner: derive it from fewshot.MetaLearner, or choose from `fewshot list`"),
        ("json.JSONDecoder", "model is json.JSONDecoder, which is no learner"),
        ("fewshot.Conv4", "model is fewshot.Conv4, which is no learner"),
        ("OWN.Lerner", "model is OWN.Lerner, but OWN has no Lerner; did you mean 'Learner'?"),
        ("json.Lerner", "model is json.Lerner, but json has no Lerner, and no other learner"),
        ("no_such.Learner", "model is no_such.Learner, but there is no module 'no_such'; correct it, or run where it is"),
        ("OWN_broken.Learner", "model is OWN_broken.Learner, but importing OWN_broken fails (RuntimeError: a line another); mend it"),
        ("OWN_needs.Learner", "model is OWN_needs.Learner, but importing OWN_needs fails (No module named 'no_such_module'); mend it"),
        ("OWN.number", "model"),
        ("OWN.", "model is OWN., but OWN has no "),
        (".Learner", "model is .Learner"),
    ],
)  # fmt: skip
def test_import_paths_of_no_learner(model: str, message: str, own: str, refusal: Refusal) -> None:
    said = refusal(f"--model={model.replace('OWN', own)}", "--data=SinusoidDataModule")
    assert said.startswith(message.replace("OWN", own))


def test_import_paths_of_no_benchmark_and_no_network(own: str, refusal: Refusal) -> None:
    assert "which is no benchmark" in refusal("--model=MAML", f"--data={own}.Learner")
    assert "which is no benchmark" in refusal(f"--data={own}.Learner", command="prepare")
    assert "has no WaveDataModule; did you mean 'WavesDataModule'?" in refusal(
        f"--data={own}.WaveDataModule", command="prepare"
    )
    network = f"--model.backbone={own}.Nothing"
    assert "backbone is " in refusal("--model=MAML", network, "--data=SinusoidDataModule")


def test_a_fact_that_a_benchmark_does_not_have(own: str, refusal: Refusal) -> None:
    args = ("--model=MAML", f"--model.backbone={own}.Clipped", "--model.backbone.inner=MLP")
    named_classes(["fit", f"--data={own}.WavesDataModule"])  # now that fact is known
    said = refusal(*args, "--data=SinusoidDataModule")
    assert said == (
        "Clipped needs ceiling, which SinusoidDataModule does not have; choose a backbone that fits"
    )


def test_a_value_that_contradicts_the_benchmark(own: str, refusal: Refusal) -> None:
    args = (*command(own), "--model.backbone.inner.ceiling=7", *FEW, *QUIET)
    said = refusal(*args, "--trainer.max_epochs=1")
    assert said == (
        "model.backbone.inner.ceiling is 7.0 but WavesDataModule has ceiling 2.5; leave"
        " model.backbone.inner.ceiling out, it follows the benchmark"
    )


@pytest.mark.parametrize(
    "args",
    [
        ("--model.backbone.inner.ceiling=7",),
        ("--model.init_args.backbone.init_args.inner.init_args.ceiling", "7"),
        ("--model.backbone.inner", "{class_path: Clipped, init_args: {ceiling: null}}"),
        ("--model", "{class_path: MAML, init_args: {backbone: {inner: {ceiling: 7}}}}"),
        ("--config", "model.yaml"),
        ("--config=of_fit.yaml",),
        ("--config", "named.yaml"),
    ],
)
def test_what_is_written_by_hand_is_found_wherever_it_stands(
    args: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    inner = {"class_path": "Clipped", "init_args": {"ceiling": 7}}
    model = {"model": {"init_args": {"backbone": {"init_args": {"inner": inner}}}}}
    Path("model.yaml").write_text(yaml.safe_dump(model))
    Path("of_fit.yaml").write_text(yaml.safe_dump({"fit": model}))
    Path("named.yaml").write_text("model: {init_args: {backbone: backbone.yaml}}")
    Path("backbone.yaml").write_text(yaml.safe_dump(model["model"]["init_args"]["backbone"]))
    key = "model.init_args.backbone.init_args.inner.init_args.ceiling"
    other = "model.init_args.backbone.init_args.ceiling"
    assert written(["fit", *args], [key, other]) == [key]
    assert written(["fit", "--model=MAML"], [key, other]) == []


def test_the_program_finds_modules_of_the_folder_that_it_runs_in(own: str, tmp_path: Path) -> None:
    code = "import sys; sys.path.remove(''); from fewshot.cli.main import main; sys.exit(main(sys.argv[1:]))"
    args = ("prepare", f"--data={own}.WavesDataModule")
    done = subprocess.run(
        [python(), "-c", code, *args],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "Waves is prepared.\n", done.stderr
