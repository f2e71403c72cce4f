"""The adaptation curve: what it shows, where it goes, and who has none."""

import math
from collections.abc import Sequence
from pathlib import Path

import lightning as L
import numpy as np
import pytest
from commands import FEW, QUIET, SINUSOID, fewshot, fit, results
from matplotlib.collections import PolyCollection
from matplotlib.text import Annotation
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot.backbones import MLP
from fewshot.callbacks.curves import AdaptationCurve, adaptation_curves, draw_curves
from fewshot.cli.main import main
from fewshot.learners import PrototypicalNetwork
from fewshot.tasks.estimates import Estimate

CLASSIFICATION = {
    "loss": Estimate(0.5, 0.1),
    "accuracy": Estimate(0.9, 0.01),
    **{f"loss_step{k}": Estimate(2.0 - k / 8, 0.1) for k in range(12)},
    **{f"accuracy_step{k}": Estimate(0.25 + k / 32, 0.01) for k in range(12)},
}


def test_the_curves_run_over_the_steps_in_their_order() -> None:
    curves = adaptation_curves(CLASSIFICATION, "accuracy")
    assert list(curves) == ["accuracy", "loss"]
    # step10 comes after step9
    assert list(curves["accuracy"].items()) == [
        (k, Estimate(0.25 + k / 32, 0.01)) for k in range(12)
    ]
    assert curves["loss"][11] == Estimate(0.625, 0.1)


def test_a_loss_that_is_the_metric_is_drawn_once() -> None:
    steps = {
        f"{name}_step{k}": Estimate(1.0 / (k + 1), 0.1)
        for name in ("loss", "mse")
        for k in range(3)
    }
    assert list(adaptation_curves(steps, "mse")) == ["mse"]
    assert adaptation_curves({"loss": Estimate(1.0, 0.1), "mse": Estimate(1.0, 0.1)}, "mse") == {}


def test_the_figure_has_line_and_band_with_accuracy_in_per_cent() -> None:
    units = {"accuracy": "%", "loss": ""}
    figure = draw_curves(adaptation_curves(CLASSIFICATION, "accuracy"), units)
    left, right = figure.axes
    for axis, scale, ci95, first in ((left, 100, 0.01, 0.25), (right, 1, 0.1, 2.0)):
        (line,) = axis.lines
        values = np.asarray(line.get_ydata(), float)
        assert np.ravel(line.get_xdata()).tolist() == list(range(12))
        assert values[0] == pytest.approx(scale * first)
        (band,) = axis.collections
        assert isinstance(band, PolyCollection)
        corners = np.asarray(band.get_paths()[0].vertices)
        for step in range(12):
            ends = corners[corners[:, 0] == step, 1]
            assert ends.min() == pytest.approx(values[step] - scale * ci95)
            assert ends.max() == pytest.approx(values[step] + scale * ci95)
    assert [text.get_text() for text in left.texts] == ["25.0 %", "59.4 %"]
    assert "per cent" in left.get_title(loc="left")
    assert "per cent" not in right.get_title(loc="left")


def test_the_interval_of_one_episode_is_unknown_and_not_drawn() -> None:
    curves = {"error": {0: Estimate(2.0, math.nan), 1: Estimate(1.0, math.nan)}}
    figure = draw_curves(curves, {"error": "px"})
    figure.canvas.draw()
    assert figure.axes[0].get_title(loc="left") == "error in px, mean ± 95 % CI"
    assert [text.get_text() for text in figure.axes[0].texts] == ["2 px", "1 px"]
    assert np.ravel(figure.axes[0].lines[0].get_ydata()).tolist() == [2.0, 1.0]


def test_a_curve_of_both_ends_is_a_line_between_them() -> None:
    estimates = {"loss_step0": Estimate(2.0, 0.1), "loss_step32": Estimate(1.0, 0.1)}
    figure = draw_curves(adaptation_curves(estimates, "accuracy"), {"loss": ""})
    (line,) = figure.axes[0].lines
    assert np.ravel(line.get_xdata()).tolist() == [0, 32]
    ends = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    assert [(text.get_text(), text.xy) for text in ends] == [("2", (0, 2.0)), ("1", (32, 1.0))]


def images(run: Path) -> dict[str, int]:
    """The number of pictures by tag."""
    found: dict[str, int] = {}
    for file in run.glob("events.out.tfevents.*"):
        events = EventAccumulator(str(file), size_guidance={"images": 0})
        events.Reload()
        found |= {tag: len(events.Images(tag)) for tag in events.Tags()["images"]}
    return found


@pytest.mark.parametrize(("curve", "steps"), [("ends", (0, 3)), ("all", range(4))])
def test_every_validation_and_the_test_have_a_figure(
    curve: str, steps: Sequence[int], tmp_path: Path
) -> None:
    options = (
        f"--model.eval_curve={curve}",
        "--model.eval_inner_steps=3",
        "--trainer.max_epochs=2",
    )
    run = fit(tmp_path, *SINUSOID, *options, drawn=True)
    assert {tag: n for tag, n in images(run).items() if "adaptation" in tag} == {
        "val/adaptation": 2,
        "test/adaptation": 1,
    }
    with Image.open(run / "adaptation.png") as picture:
        assert min(picture.size) > 200
    found = {name for name in results(run)["metrics"] if name.startswith("mse_step")}
    assert found == {f"mse_step{k}" for k in steps}


def test_there_is_none_where_it_is_not_asked_for_and_a_later_test_has_it(tmp_path: Path) -> None:
    run = fit(tmp_path, *SINUSOID, "--model.eval_curve=none", "--trainer.max_epochs=1")
    assert not [tag for tag in images(run) if "adaptation" in tag]
    assert not (run / "adaptation.png").exists()
    before = results(run)["metrics"]
    assert set(before) == {"loss", "mse"}
    checkpoint = f"--ckpt_path={run / 'checkpoints/best.ckpt'}"
    asked = fewshot("test", tmp_path, *SINUSOID, "--model.eval_curve=all", checkpoint)
    assert (asked / "adaptation.png").exists()
    after = results(asked)["metrics"]
    assert {name: after[name] for name in before} == before
    assert after["mse_step1"] == before["mse"] != after["mse_step0"]


def test_a_sanity_check_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def note(
        self: AdaptationCurve, trainer: L.Trainer, learner: L.LightningModule, stage: str
    ) -> None:
        calls.append(stage)

    monkeypatch.setattr(AdaptationCurve, "_figure", note)
    options = (
        "--trainer.max_epochs=1",
        f"--trainer.default_root_dir={tmp_path}",
        "--trainer.num_sanity_val_steps=1",
    )
    assert main(["fit", *SINUSOID, *FEW, *QUIET, *options]) == 0
    assert calls == ["val", "test"]


def test_learners_that_take_no_steps_have_none(tmp_path: Path) -> None:
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    learner = PrototypicalNetwork(MLP(2), task={"kind": "classification", "way": 2})
    learner.estimates["test"] = {"loss": Estimate(0.5, 0.1), "accuracy": Estimate(0.9, 0.01)}
    AdaptationCurve().on_test_end(trainer, learner)
    AdaptationCurve().on_test_end(trainer, L.LightningModule())
    assert not list(tmp_path.iterdir())
    learner.estimates["test"] |= {"loss_step0": Estimate(0.5, 0.1)}
    AdaptationCurve().on_test_end(trainer, learner)
    assert [path.name for path in tmp_path.iterdir()] == ["adaptation.png"]
