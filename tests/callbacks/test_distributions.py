"""The figures of a whole test: what they show, where they go, and where there are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from commands import SINUSOID, fewshot
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot import GlyphsDataModule, PrototypicalNetwork, Trainer
from fewshot.backbones import Conv4
from fewshot.callbacks.distributions import reliability
from fewshot.tasks.drawing.distributions import draw_histogram, draw_reliability
from fewshot.tasks.estimates import Estimate


def heights(values: np.ndarray[tuple[int], np.dtype[np.float64]], unit: str) -> list[float]:
    figure = draw_histogram(values, "accuracy", unit, Estimate(0.8, 0.01))
    assert figure is not None
    bars = figure.axes[0].containers[0]
    return [bar.get_height() for bar in bars]


def test_few_values_have_a_bin_each_and_many_share_equal_bins() -> None:
    values = (np.array([0, 3, 3, 4, 5, 5, 5], np.float32) / 5).astype(np.float64)
    assert heights(values, "%") == [1, 0, 0, 2, 1, 3]
    every = np.arange(76).repeat(3) / 75  # each accuracy of 75 queries as often as the others
    found = heights(every, "%")
    assert sum(found) == len(every)
    assert len(set(found[:-1])) == 1, "equal bins hold equally many of the values"
    assert 10 <= len(found) <= 20
    spread = np.random.default_rng(0).lognormal(size=300)
    assert sum(heights(spread, "")) == 300
    assert heights(np.ones(9), "%") == [9]


def test_what_is_not_finite_is_left_out_and_one_episode_is_no_distribution() -> None:
    assert sum(heights(np.array([1, np.nan, 2, np.inf, 3]), "")) == 3
    for values in ([], [0.5], [0.5, np.nan]):
        assert draw_histogram(np.array(values), "mse", "", Estimate(0.5, np.nan)) is None


def test_reliability_is_drawn_bin_by_bin() -> None:
    sums = np.array([[0, 10, 30], [0, 5, 27], [0, 6, 24.0]])
    figure = draw_reliability(sums, 0.1, 2.0)
    assert figure is not None
    (axis,) = figure.axes
    right = np.asarray(axis.lines[1].get_xydata())
    np.testing.assert_allclose(right, [(60, 50), (80, 90)])
    np.testing.assert_allclose([bar.get_height() for bar in axis.containers[0]], [25, 75])
    assert axis.get_title("left") == "calibration error (ECE) 10.00 %, temperature 2"
    assert draw_reliability(np.zeros((3, 4)), 0.0, None) is None


def test_a_test_leaves_both_in_its_folder_and_in_tensorboard(tmp_path: Path) -> None:
    data = GlyphsDataModule(test_episodes=5, queries=3)
    learner = PrototypicalNetwork(Conv4(data.in_channels, data.image_size, width=4))
    trainer = Trainer(default_root_dir=tmp_path, accelerator="cpu", enable_progress_bar=False)
    trainer.test(learner, data, verbose=False)
    (run,) = {path.parent for path in tmp_path.rglob("results.json")}
    board = EventAccumulator(str(run))
    board.Reload()
    for name in ("histogram", "reliability"):
        with Image.open(run / f"{name}.png") as picture:
            assert abs(picture.width - 460) <= 1  # older matplotlibs cut off a pixel
            assert abs(picture.height - 340) <= 1
            assert len(np.unique(np.asarray(picture))) > 50, "something is drawn"
        assert f"test/{name}" in board.Tags()["images"]
    text = board.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "| Learner | PrototypicalNetwork |" in text, "a run from Python has no config.yaml"
    figure = reliability(learner)
    assert figure is not None
    assert learner.reliability is not None
    queries, right, _ = learner.reliability
    assert queries.sum() == 5 * 15
    accuracy = learner.estimates["test"]["accuracy"].mean
    torch.testing.assert_close((right.sum() / queries.sum()).item(), accuracy)


@pytest.mark.parametrize("logger", ["--trainer.logger=false", "--trainer.logger=CSVLogger"])
def test_what_has_no_probabilities_has_a_histogram_alone(tmp_path: Path, logger: str) -> None:
    where = () if "false" in logger else (f"--trainer.logger.save_dir={tmp_path}/c",)
    fewshot("test", tmp_path, *SINUSOID, logger, *where)
    assert [path.name for path in tmp_path.rglob("histogram.png")]
    assert not list(tmp_path.rglob("reliability.png"))
