"""A task kind in a user's own module: named by its import path, it works as the package's own do."""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import FEW, QUIET, fewshot, fit, results
from PIL import Image

from fewshot import MAML
from fewshot.cli.main import main

MODULE = '''
"""Where on a line: a kind whose results are pixels and shares, and a benchmark of it."""

from dataclasses import dataclass

import torch
from matplotlib.figure import Figure

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.episodes.distributions import Stacked
from fewshot.episodes.types import Episode, Examples
from fewshot.tasks import Task


@dataclass(frozen=True)
class Pointing(Task):
    kind = "pointing"
    monitor = ("error", "min")
    units = {"error": "px", "near": "%"}
    prediction_columns = ("truth", "guess", "strip")
    image_folders = {"strip": "strips"}

    reach: float

    @property
    def output_size(self):
        return 1

    def loss(self, outputs, targets):
        return (outputs[:, 0] - targets).abs().mean()

    def metrics(self, outputs, targets):
        off = (outputs[:, 0] - targets).abs()
        return {"error": off.mean(), "near": (off < self.reach).float().mean()}

    def predictions(self, outputs, targets):
        strips = torch.zeros(len(targets), 1, 8, dtype=torch.uint8)
        strips[:, 0, 3] = 7
        return [targets, outputs[:, 0].tolist(), strips]

    def picture(self, view):
        figure = Figure(figsize=(3, 3))
        axis = figure.add_axes((0, 0, 1, 1))
        for name, outputs in view.outputs_by_step().items():
            axis.plot(view.episode.query.targets, outputs[:, 0], "o", label=name)
        return figure


class Lines(Stacked):
    def __init__(self, shot, queries):
        self.shot, self.queries = shot, queries

    def draw(self, rng):
        x = torch.from_numpy(rng.normal(size=(self.shot + self.queries, 3))).float()
        y = x @ torch.from_numpy(rng.normal(size=3)).float()
        return Episode(
            Examples(x[: self.shot], y[: self.shot]), Examples(x[self.shot :], y[self.shot :])
        )


class PointsDataModule(EpisodicDataModule):
    benchmark = "Points"
    in_features = 3

    @property
    def task(self):
        return {"kind": "own_points.Pointing", "reach": 0.5}

    def tasks(self, stage):
        return Lines(self.shot, self.queries)


class PointsByClassDataModule(PointsDataModule):
    @property
    def task(self):
        return {"kind": Pointing, "reach": 0.5}
'''

OPTIONS = (
    *("--model=MAML", "--model.backbone=MLP", "--model.eval_curve=all"),
    *("--data.meta_batch_size=4", "--data.queries=5"),
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `own_points` on the path."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own/own_points.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "own"))
    yield
    sys.modules.pop("own_points", None)


def rows_of(out: str) -> list[list[str]]:
    """The rows of a printed table."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()]


@pytest.mark.usefixtures("own")
def test_fit_summary_and_rank(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for seed, data in enumerate(("PointsDataModule", "PointsByClassDataModule")):
        options = (*OPTIONS, f"--data=own_points.{data}", f"--data.seed={seed}")
        run = fit(tmp_path, *options, drawn=True)
        shown = rows_of(capsys.readouterr().out)
        found = results(run)
        metrics = found["metrics"]
        pairs = ("error", "near", "error_step0", "near_step1", "loss")
        assert {name: found["units"].get(name) for name in pairs} == {
            "error": "px",
            "near": "%",
            "error_step0": "px",
            "near_step1": "%",
            "loss": None,
        }
        assert found["monitor"] == {"metric": "error", "mode": "min"}
        error, near = metrics["error"], metrics["near"]
        assert ["error", f"{error['mean']:.2f} ± {error['ci95']:.2f} px"] in shown
        assert ["near", f"{100 * near['mean']:.2f} ± {100 * near['ci95']:.2f} %"] in shown
        for picture in ("episode.png", "adaptation.png"):
            with Image.open(run / picture) as image:
                assert min(image.size) > 200
        held = torch.load(run / "checkpoints/best.ckpt", weights_only=True)
        monitors = [state.get("monitor") for state in held["callbacks"].values()]
        assert "val/error" in monitors
        learner = MAML.load_from_checkpoint(run / "checkpoints/best.ckpt")
        assert learner.task.kind == "pointing"
        folders.append(run)
    errors = [results(run)["metrics"]["error"]["mean"] for run in folders]
    assert main(["summary", *map(str, folders)]) == 0
    expected = f"{np.mean(errors):.2f} ± {np.std(errors, ddof=1):.2f} px"
    assert ["error", expected] in [row[:2] for row in rows_of(capsys.readouterr().out)]
    for run, error in zip(folders, (3.0, 2.0), strict=True):
        content = results(run)
        sources = {"all": {**content["metrics"], "error": {"mean": error, "ci95": 0.5}}}
        (run / "results.json").write_text(json.dumps({**content, "sources": sources}))
    assert main(["rank", *map(str, folders)]) == 0
    placed = ["all", "3.00 ± 0.50 px (2)", "2.00 ± 0.50 px (1)"]
    assert placed in rows_of(capsys.readouterr().out)


@pytest.mark.usefixtures("own")
def test_predict(tmp_path: Path) -> None:
    run = fewshot("predict", tmp_path, *OPTIONS, "--data=own_points.PointsDataModule")
    with (run / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["episode", "query", "truth", "guess", "strip"]
    assert [(row["episode"], row["query"]) for row in rows] == [
        (str(episode), str(query)) for episode in range(3) for query in range(5)
    ]
    assert rows[7]["strip"] == "strips/episode1_query2.png"
    assert len({float(row["truth"]) for row in rows}) == 15
    with Image.open(run / rows[7]["strip"]) as strip:
        assert np.asarray(strip).tolist() == [[0, 0, 0, 7, 0, 0, 0, 0]]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("Pointing(Task)", "Pointing", "own_points.Pointing' is no class of a task kind; use one"),
        ('own_points.Pointing"', 'own_points.Pointin"', "has no Pointin; did you mean 'Pointing'"),
        ('own_points.Pointing"', 'own_point.Pointing"', r"cannot be imported (No module named"),
        ('monitor = ("error", "min")', "", "task kind Pointing does not state its monitor; make"),
        ('"reach": 0.5', '"reech": 0.5', "Pointing has no argument 'reech'; did you mean 'reach'?"),
        ("def loss", "def lose", "does not fit the kind 'own_points.Pointing' ("),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    wrong: str, right: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = MODULE.replace(wrong, right)
    assert changed != MODULE
    (tmp_path / "own/own_points.py").write_text(changed)
    data = ("--data=own_points.PointsDataModule", f"--trainer.default_root_dir={tmp_path}")
    assert main(["test", *OPTIONS, *data, *FEW, *QUIET]) == 2
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("fewshot: error"))
    assert message in line
