"""`fewshot summary`: mean and sample deviation over runs of one protocol, and every refusal."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from fakes import fake_snips

from fewshot.cli.main import main
from fewshot.cli.runs import Run, read_results
from fewshot.cli.summary import spread
from fewshot.errors import FewshotError

pytestmark = pytest.mark.usefixtures("undrawn")

RUN: dict[str, Any] = {
    "learner": "PrototypicalNetwork",
    "benchmark": "SNIPS",
    "way": 7,
    "shot": 1,
    "seed": 0,
    "split": "all, fold 0",
    "metrics": {"accuracy": {"mean": 0.5, "ci95": 0.0}, "loss": {"mean": 1.0, "ci95": 0.0}},
}


def run(fold: int, accuracy: float, **changes: Any) -> dict[str, Any]:
    metrics = {"accuracy": {"mean": accuracy}, "loss": {"mean": 2 * accuracy}}
    return {**RUN, "split": f"all, fold {fold}", "metrics": metrics, **changes}


def runs(*results: dict[str, Any]) -> list[Run]:
    return [Run(name, Path(name), content) for name, content in zip("abc", results, strict=False)]


def test_the_deviation_is_the_samples() -> None:
    found = spread(
        runs(run(0, 0.5, global_step=60), run(1, 0.6, global_step=80), run(2, 0.7, seconds=1.5))
    )
    # of three runs, Student's t of two degrees of freedom
    assert found["accuracy"] == pytest.approx((0.6, 0.1, 4.302652729911275 * 0.1 / 3**0.5))
    assert found["loss"] == pytest.approx((1.2, 0.2, 4.302652729911275 * 0.2 / 3**0.5))


def test_the_interval_of_two_runs_is_unknown() -> None:
    assert math.isnan(spread(runs(run(0, 0.5), run(1, 0.6)))["accuracy"].ci95)


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([run(0, 0.5)], "needs two runs at least; name more folders"),
        (
            [run(0, 0.5), run(0, 0.5)],
            "run1 and run0 both have split all, fold 0 and seed 0; leave one out",
        ),
        (
            [run(0, 0.5), run(1, 0.5, shot=5)],
            "run1 has shot 5, run0 has 1; put runs of one protocol together",
        ),
        ([run(0, 0.5), run(1, 0.5, queries=3)], "run1 has queries 3, run0 has None; put runs"),
        (
            [run(0, 0.5), run(1, 0.5, metrics={"loss": {"mean": 1.0}})],
            "run1 has the metrics loss, run0 has accuracy",
        ),
    ],
)
def test_runs_that_do_not_belong_together_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], results: list[dict[str, Any]], message: str
) -> None:
    folders = [tmp_path / f"run{i}" for i in range(len(results))]
    for folder, content in zip(folders, results, strict=True):
        folder.mkdir()
        (folder / "results.json").write_text(json.dumps(content))
    assert main(["summary", *map(str, folders)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line.replace(f"{tmp_path}/", "")


def test_units_are_the_runs_own_or_those_of_the_old_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    facts = {"units": {"loss": "bits"}, "monitor": {"metric": "loss", "mode": "min"}}
    for own, first, second in (
        (facts, ("0.60 ± 0.14", "0.60 ± ?"), ("1.20 ± 0.28 bits", "1.20 ± ? bits")),
        ({}, ("60.00 ± 14.14 %", "60.00 ± ? %"), ("1.20 ± 0.28", "1.20 ± ?")),
    ):
        for fold, accuracy in enumerate((0.5, 0.7)):
            (folder := tmp_path / str(fold)).mkdir(exist_ok=True)
            (folder / "results.json").write_text(json.dumps(run(fold, accuracy, **own)))
        assert main(["summary", str(tmp_path / "0"), str(tmp_path / "1")]) == 0
        lines = capsys.readouterr().out.splitlines()
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
        assert ["accuracy", *first] in rows
        assert ["loss", *second] in rows


def test_an_old_run_goes_with_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"units": {"accuracy": "%"}, "monitor": {"metric": "accuracy", "mode": "max"}}
    for name, content in (("old", run(0, 0.5)), ("new", run(1, 0.7, **facts))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps(content))
    for order in (("old", "new"), ("new", "old")):
        assert main(["summary", *(str(tmp_path / name) for name in order)]) == 0
        assert "60.00 ± 14.14 %" in capsys.readouterr().out


def test_runs_of_several_training_seeds_go_together() -> None:
    seeds = [run(0, 0.5, seed_everything=1), run(0, 0.7, seed_everything=2)]
    assert spread(runs(*seeds))["accuracy"].mean == pytest.approx(0.6)
    with pytest.raises(FewshotError, match=r"b and a both have .* seed 0 and seed_everything 1;"):
        spread(runs(seeds[0], run(0, 0.7, seed_everything=1)))


def test_a_metric_that_is_no_number_is_unknown_and_the_others_are_told() -> None:
    other = run(1, 0.7, metrics={"accuracy": {"mean": None}, "loss": {"mean": 1.4}})
    found = spread(runs(run(0, 0.5), other))
    assert all(map(math.isnan, found["accuracy"]))
    assert found["loss"].mean == pytest.approx(1.2)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}"])
def test_what_is_no_result_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    assert main(["summary", str(tmp_path), str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path / "results.json") in line
    assert "give folders of tested runs" in line


def test_the_command_on_two_folds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, folders = fake_snips(tmp_path / "data"), []
    for fold in (0, 1):
        base = tmp_path / f"fold{fold}"
        options = (
            "--model=PrototypicalNetwork",
            "--model.backbone=TfIdf",
            "--data=SNIPSDataModule",
        )
        data = (f"--data.root={root}", "--data.shot=2", f"--data.fold={fold}")
        quiet = ("--trainer.enable_progress_bar=false", f"--trainer.default_root_dir={base}")
        assert main(["test", *options, *data, *quiet, "--run_name=version"]) == 0
        folders.append(str(base / "lightning_logs/version_0"))
    capsys.readouterr()
    assert main(["summary", *folders]) == 0
    shown = capsys.readouterr().out
    means = [read_results(Path(folder))["metrics"]["accuracy"]["mean"] for folder in folders]
    assert f"{50 * sum(means):.2f} ± {100 * abs(means[0] - means[1]) / 2**0.5:.2f} %" in shown
    words = " ".join(shown.split())  # the terminal's width decides on the lines
    assert "PrototypicalNetwork on SNIPS, 7-way 2-shot" in words
    assert "2 runs: all, fold 0, all, fold 1" in words
