"""The command line: what a run leaves, that it can be redone, every way to say the same thing."""

import csv
import inspect
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from commands import FEW, QUIET, SINUSOID, fewshot, fit, results
from forks import python
from lightning import Trainer

import fewshot as package
from fewshot.cli.catalogue import benchmarks, learners, networks
from fewshot.cli.main import main
from fewshot.hyperparameters import parameter_names

pytestmark = pytest.mark.usefixtures("undrawn")

CONFIG = Path(__file__).resolve().parents[1] / "configs/sinusoid/maml_10shot.yaml"
FACTS = {
    "benchmark",
    "split",
    "learner",
    "backbone",
    "way",
    "shot",
    "queries",
    "episodes",
    "seed",
    "batchnorm",
}
PROVENANCE = {
    "checkpoint",
    "global_step",
    "precision",
    "parameters",
    "seconds",
    "versions",
    "metrics",
    "units",
    "monitor",
}
PROVENANCE |= {"untrained", "partial", "seed_everything"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two epochs of two steps."""
    return fit(
        tmp_path_factory.mktemp("trained"),
        *SINUSOID,
        "--trainer.max_epochs=2",
        "--seed_everything=3",
    )


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert isinstance(state, dict)
    return state


def same(first: Path, second: Path) -> bool:
    one, other = weights(first), weights(second)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def printed(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What a command prints that ends by itself, such as --help."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        main(list(args))
    assert stop.value.code in (0, None)
    return capsys.readouterr().out


# ---------------------------------------------------------------------- what a run leaves


def test_the_results_are_those_of_the_episodes(trained: Path) -> None:
    result = results(trained)
    assert set(result) == FACTS | PROVENANCE
    facts = {
        "benchmark": "Sinusoid",
        "learner": "MAML",
        "backbone": "MLP",
        "shot": 10,
        "queries": 100,
        "seed": 0,
    }
    assert facts.items() <= result.items()
    assert (result["way"], result["split"], result["episodes"], result["global_step"]) == (
        None,
        None,
        3,
        4,
    )
    assert result["parameters"] == 1 * 40 + 40 + 40 * 40 + 40 + 40 + 1
    assert 0 < result["seconds"] < 60
    assert result["versions"]["fewshot"] == package.__version__
    assert {"python", "torch", "lightning"} <= set(result["versions"])
    with (trained / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["episode"] for row in rows] == ["0", "1", "2"]
    assert set(result["metrics"]) == set(rows[0]) - {"episode"} == {"loss", "mse"}
    for name, estimate in result["metrics"].items():
        values = [float(row[name]) for row in rows]
        mean = sum(values) / 3
        deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
        assert estimate["mean"] == pytest.approx(mean, rel=1e-9)
        student = 4.302652729911275  # of two degrees of freedom
        assert estimate["ci95"] == pytest.approx(student * deviation / math.sqrt(3), rel=1e-9)


@pytest.mark.parametrize("episodes", [1, 2])
def test_one_or_two_episodes_have_no_interval(episodes: int, tmp_path: Path) -> None:
    args = (
        *SINUSOID,
        *FEW,
        *QUIET,
        f"--data.test_episodes={episodes}",
        f"--trainer.default_root_dir={tmp_path}",
    )
    assert main(["test", *args]) == 0
    (folder,) = (tmp_path / "lightning_logs").iterdir()
    mse = results(folder)["metrics"]["mse"]
    assert mse["ci95"] is None
    assert (mse["std"] is None) == (episodes == 1)
    assert results(folder)["checkpoint"] is None


def test_testing_again_gives_the_same_bits(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = fewshot("test", tmp_path, *SINUSOID, f"--ckpt_path={trained}/checkpoints/best.ckpt")
    assert (again / "episodes.csv").read_bytes() == (trained / "episodes.csv").read_bytes()
    one, other = results(again), results(trained)
    assert one.pop("seconds") > 0
    assert other.pop("seconds") > 0
    assert one == other
    out = capsys.readouterr().out
    assert "MAML on Sinusoid, 10-shot" in out
    assert "Test metric" not in out, "lightning's table would say it twice"
    assert f"tensorboard --logdir {again.parent}\n" in out


def test_validate(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = trained / "checkpoints/best.ckpt"
    run = fewshot("validate", tmp_path, *SINUSOID, f"--ckpt_path={path}")
    out = capsys.readouterr().out
    assert "2 validation episodes, seed 0" in " ".join(out.split())
    assert "Validate metric" not in out, "lightning's table would say it twice"
    best = torch.load(path, weights_only=True)
    (state,) = (
        state for name, state in best["callbacks"].items() if name.startswith("BestCheckpoint")
    )
    found = results(run)
    assert found["metrics"]["mse"]["mean"] == pytest.approx(float(state["current_score"]), rel=1e-6)
    assert (found["stage"], found["episodes"], found["checkpoint"]) == ("validation", 2, str(path))
    assert (found["global_step"], found["seconds"] > 0) == (4, True)
    with open(run / "episodes.csv", newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [float(row["mse"]) for row in rows] == pytest.approx(
        [2 * found["metrics"]["mse"]["mean"] - float(row["mse"]) for row in reversed(rows)]
    )


def test_predict_writes_each_query(trained: Path, tmp_path: Path) -> None:
    run = fewshot("predict", tmp_path, *SINUSOID, f"--ckpt_path={trained}/checkpoints/best.ckpt")
    with (run / "predictions.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert [(row["episode"], row["query"]) for row in rows] == [
        (e, q) for e in range(3) for q in range(100)
    ]
    with (trained / "episodes.csv").open() as file:
        expected = [float(row["mse"]) for row in csv.DictReader(file)]
    for episode in range(3):
        errors = [
            (row["target"] - row["predicted"]) ** 2 for row in rows if row["episode"] == episode
        ]
        assert sum(errors) / 100 == pytest.approx(expected[episode], rel=1e-5)


def test_predict_gives_the_deviations_of_who_predicts_them(tmp_path: Path) -> None:
    args = ("--model=GaussianProcess", "--data=GaussianProcessDataModule", "--data.queries=4")
    predicted = fewshot("predict", tmp_path / "predict", *args)
    tested = fewshot("test", tmp_path / "test", *args)
    with (predicted / "predictions.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    assert list(rows[0]) == ["episode", "query", "target", "predicted", "deviation"]
    densities = [
        -0.5 * ((row["target"] - row["predicted"]) / row["deviation"]) ** 2
        - math.log(row["deviation"] * math.sqrt(2 * math.pi))
        for row in rows
    ]
    with (tested / "episodes.csv").open() as file:
        expected = [float(row["log_likelihood"]) for row in csv.DictReader(file)]
    assert [sum(densities[i : i + 4]) / 4 for i in (0, 4, 8)] == pytest.approx(expected, rel=1e-4)


def test_predict_gives_labels_and_probabilities(tmp_path: Path) -> None:
    args = (
        "--model=PrototypicalNetwork",
        "--model.backbone=MLP",
        "--data=GlyphsDataModule",
        "--data.queries=2",
    )
    predicted = fewshot("predict", tmp_path / "predict", *args)
    tested = fewshot("test", tmp_path / "test", *args)
    with (predicted / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows] == ["0", "0", "1", "1", "2", "2", "3", "3", "4", "4"] * 3
    assert all(0.2 <= float(row["probability"]) <= 1 for row in rows)  # the largest of five
    with (tested / "episodes.csv").open() as file:
        expected = [float(row["accuracy"]) for row in csv.DictReader(file)]
    right = [row["label"] == row["predicted"] for row in rows]
    assert [sum(right[i : i + 10]) / 10 for i in (0, 10, 20)] == pytest.approx(expected)


# ---------------------------------------------------------------------- doing it again


def test_a_runs_config_gives_the_same_weights(trained: Path, tmp_path: Path) -> None:
    arguments = ["fit", f"--config={trained}/config.yaml", f"--trainer.default_root_dir={tmp_path}"]
    assert main(arguments) == 0
    (again,) = (tmp_path / "lightning_logs").iterdir()
    for name in ("best", "last"):
        assert same(again / f"checkpoints/{name}.ckpt", trained / f"checkpoints/{name}.ckpt")
    assert results(again)["metrics"] == results(trained)["metrics"]


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_the_config_of_a_fit_is_a_config_for_the_other_commands(
    command: str, trained: Path, tmp_path: Path
) -> None:
    checkpoint = f"--ckpt_path={trained}/checkpoints/best.ckpt"
    run = fewshot(command, tmp_path, f"--config={trained}/config.yaml", checkpoint)
    assert (run / "predictions.csv").is_file() == (command == "predict")
    assert (run / "results.json").is_file() == (command != "predict")


def test_a_resumed_run_ends_like_an_uninterrupted_one(trained: Path, tmp_path: Path) -> None:
    first = fit(tmp_path / "first", *SINUSOID, "--trainer.max_epochs=1", "--seed_everything=3")
    assert not same(first / "checkpoints/last.ckpt", trained / "checkpoints/last.ckpt")
    resumed = ("--trainer.max_epochs=2", f"--ckpt_path={first}/checkpoints/last.ckpt")
    second = fit(tmp_path / "second", *SINUSOID, *resumed, "--seed_everything=3")
    assert same(second / "checkpoints/last.ckpt", trained / "checkpoints/last.ckpt")


def test_the_seed_decides_the_weights(trained: Path, tmp_path: Path) -> None:
    other = fit(tmp_path, *SINUSOID, "--trainer.max_epochs=2", "--seed_everything=4")
    assert not same(other / "checkpoints/last.ckpt", trained / "checkpoints/last.ckpt")


# ---------------------------------------------------------------------- saying it


def test_print_config_round_trip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "fit", f"--config={CONFIG}", "--model.inner_lr=0.02", "--print_config")
    config = yaml.safe_load(out)
    assert config["model"]["init_args"]["inner_lr"] == 0.02
    assert config["model"]["init_args"]["eval_inner_steps"] is None, "defaults are there too"
    (tmp_path / "again.yaml").write_text(out)
    assert printed(capsys, "fit", f"--config={tmp_path}/again.yaml", "--print_config") == out


def test_later_configs_and_the_command_line_win(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "later.yaml").write_text(
        "model: {init_args: {inner_lr: 0.05, inner_steps: 2}}\ntrainer: {max_epochs: 7}"
    )
    args = [f"--config={CONFIG}", f"--config={tmp_path}/later.yaml", "--model.inner_steps=3"]
    config = yaml.safe_load(printed(capsys, "fit", *args, "--print_config"))
    arguments = config["model"]["init_args"]
    assert (arguments["inner_lr"], arguments["inner_steps"], config["trainer"]["max_epochs"]) == (
        0.05,
        3,
        7,
    )
    assert arguments["backbone"]["init_args"]["hidden"] == [40, 40], "what no later one says stays"


def test_the_last_of_two_learners_wins(capsys: pytest.CaptureFixture[str]) -> None:
    args = ("--model=PrototypicalNetwork", *SINUSOID)
    assert (
        yaml.safe_load(printed(capsys, "fit", *args, "--print_config"))["model"]["class_path"]
        == "fewshot.MAML"
    )


def test_linked_facts_are_in_no_config(trained: Path) -> None:
    arguments = yaml.safe_load((trained / "config.yaml").read_text())["model"]["init_args"]
    assert "task" not in arguments
    assert "in_features" not in arguments["backbone"]["init_args"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--test_after_fit=false",),
        ("--trainer.enable_checkpointing=false",),
        ("--trainer.logger=false",),
        ("--trainer.fast_dev_run=true",),
        ("--trainer.enable_progress_bar=true", "--trainer.enable_model_summary=true"),
    ],
    ids=lambda flags: flags[0].removeprefix("--").partition("=")[0],
)
def test_the_trainers_own_flags(
    flags: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *SINUSOID, *FEW, *QUIET, "--trainer.max_epochs=1", root, *flags]) == 0
    files = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    flag = flags[0].partition("=")[0]
    tested = flag not in ("--test_after_fit", "--trainer.fast_dev_run")
    assert (
        {"results.json", "episodes.csv"} <= files
        if tested
        else not {"results.json", "episodes.csv"} & files
    )
    saved = flag not in ("--trainer.enable_checkpointing", "--trainer.fast_dev_run")
    assert (
        ({"best.ckpt", "last.ckpt"} & files == {"best.ckpt", "last.ckpt"})
        if saved
        else not {"best.ckpt"} & files
    )
    assert ("episodes/s" in capsys.readouterr().out) == (flag == "--trainer.enable_progress_bar")


def test_the_learner_is_built_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[type] = []
    for cls in (package.MLP, package.MAML):
        original: Callable[..., None] = cls.__init__

        def spy(
            self: object, *args: object, original: Callable[..., None] = original, **kwargs: object
        ) -> None:
            built.append(type(self))
            original(self, *args, **kwargs)

        # jsonargparse reads the original's signature
        spy.__wrapped__ = original  # type: ignore[attr-defined]
        monkeypatch.setattr(cls, "__init__", spy)
    fit(tmp_path, *SINUSOID, "--trainer.max_steps=1", "--test_after_fit=false")
    assert built == [package.MLP, package.MAML]


# ---------------------------------------------------------------------- help


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "--version") == f"fewshot {package.__version__}\n"


@pytest.mark.parametrize(
    "command",
    ["list", "completion", "compare", "rank", "summary", "sweep", "prepare", "predict", "export"],
)
def test_every_command_of_our_own_has_help(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, command, "--help")
    assert out.startswith(f"usage: fewshot {command} ")
    assert "[]" not in out


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    out = printed(capsys, "--help")
    assert "fewshot list" in out
    assert all(command in out for command in ("fit", "validate", "test", "predict"))
    out = printed(capsys, "fit", "--help")
    assert all(
        option in out
        for option in ("--trainer.max_epochs", "--model.help", "--data.help", "--test_after_fit")
    )


CLASSES = {
    "--model": learners,
    "--data": benchmarks,
    "--model.backbone": networks,
}


@pytest.mark.parametrize("option", CLASSES)
def test_every_class_has_a_help_of_two_screens(
    option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for entry in CLASSES[option]():
        out = printed(capsys, "fit", f"{option}.help", entry.name)
        assert len(out.splitlines()) <= 140, entry.name
        assert all(len(line) <= 80 for line in out.splitlines())
        for argument in parameter_names(entry.cls):
            _, found, text = out.partition(f"  {option}.{argument}  ")
            assert found, f"{entry.name} does not list {argument}"
            facts, _, told = text.partition("\n")
            assert facts.strip(), argument
            assert not facts.startswith(";"), argument
            described = told.partition("\n  --")[0].split()
            assert len(described) >= 2, f"{argument} of {entry.name}: document it in Args"


@pytest.mark.parametrize(
    ("args", "lines"),
    [
        (("--model.help", "MAML"), ["--model.inner_lr  number > 0; default 0.01"]),
        (("--model", "MAML", "--model.help"), ["--model.task  mapping to any value; the bench"]),
        (("--model.help=fewshot.MAML",), ["--model.episode_parallel  auto, loop or vmap; def"]),
        (
            ("--model.backbone.help", "Conv4"),
            ["--model.backbone.in_channels  integer >= 1; the benchmark's", "integer in [0, 4]"],
        ),
    ],
)
def test_help_says_kind_range_and_default(
    args: tuple[str, ...], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    out = printed(capsys, "fit", *args)
    assert all(line in out for line in lines)
    assert len(out.splitlines()) <= 116
    if "MAML" in args[-1]:  # its own first, then its family's, then what all share
        places = (
            "Its own arguments:",
            "--model.inner_lr ",
            "Arguments of its family, OptimizationLearner (",
            "--model.adapt ",
            "Arguments of all, MetaLearner (",
            "--model.optimizer ",
        )
        order = [out.index(place) for place in places]
        assert order == sorted(order)


@pytest.mark.parametrize("words", ["fit --model.help MAML", "completion zsh", "list"])
def test_who_has_read_enough_gets_no_error(words: str, tmp_path: Path) -> None:
    """`fewshot ... | head` ends in silence, as a shell's programs do."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        run = subprocess.run(
            [python(), "-m", "fewshot", *words.split()],
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            check=False,
        )
    assert (run.returncode, run.stderr) == (141, "")


def test_help_of_no_class(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--model.help"]) == 2
    assert "--model.help of which class? Name it" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_help_of_a_run_has_every_option(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = printed(capsys, command, "--help")
    assert len(out.splitlines()) <= 120
    names = {"config", "model", "data", "seed_everything", "ckpt_path", "print_config", "run_name"}
    names |= {f"trainer.{name}" for name in inspect.signature(Trainer.__init__).parameters}
    assert {f"--{name}" for name in names - {"trainer.self"}} <= {*out.split()}
    assert ("--test_after_fit" in out.split()) == (command == "fit")


def test_python_m(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "fewshot", "fti"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert run.returncode == 2
    assert run.stderr == "fewshot: error: unknown command 'fti'; did you mean 'fit'?\n"
    assert run.stdout == ""
