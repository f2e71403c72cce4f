"""What TensorBoard gets of runs: charts of more than a point, in groups, and the rest elsewhere."""

import doctest
import math
from pathlib import Path
from typing import Any

import pytest
from commands import results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from two_runs import two_runs

from fewshot.callbacks import board
from fewshot.callbacks.board import BoardLogger, chart, markdown

__all__ = ["two_runs"]  # a fixture
NAMES = ("prototypicalnetwork-glyphs-5way1shot-0", "maml-glyphs-5way1shot-0")


@pytest.fixture(scope="module")
def boards(two_runs: Path) -> dict[str, EventAccumulator]:
    """All that TensorBoard has read of each run, by the run's name there."""
    found = {
        path.name: EventAccumulator(str(path), size_guidance={"scalars": 0, "histograms": 0})
        for path in two_runs.iterdir()
        if path.is_dir()
    }
    for events in found.values():
        events.Reload()
    return found


def text(events: EventAccumulator, tag: str) -> str:
    (event,) = events.Tensors(tag)
    found: bytes = event.tensor_proto.string_val[0]
    return found.decode()


def test_a_run_is_called_by_what_it_is(boards: dict[str, EventAccumulator]) -> None:
    assert set(boards) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_no_chart_has_a_single_point(name: str, boards: dict[str, EventAccumulator]) -> None:
    events = boards[name]
    points = {tag: len(events.Scalars(tag)) for tag in events.Tags()["scalars"]}
    assert len(points) > 8
    assert {tag: number for tag, number in points.items() if number < 2} == {}
    assert not {"epoch", "hp_metric"} & set(points)


@pytest.mark.parametrize("name", NAMES)
def test_accuracy_comes_first_and_in_one_group(
    name: str, boards: dict[str, EventAccumulator]
) -> None:
    tags = sorted(boards[name].Tags()["scalars"])
    groups = list(dict.fromkeys(tag.partition("/")[0] for tag in tags))
    assert groups == ["accuracy", "episodes_per_second", "loss"]
    own = [tag for tag in tags if tag.startswith("accuracy/") and "_step" not in tag]
    assert own == [f"accuracy/{n}" for n in ("best_val", "test", "train", "val", "val_ci95")]


def test_a_tests_chart_is_its_mean_over_more_and_more_episodes(
    two_runs: Path, boards: dict[str, EventAccumulator]
) -> None:
    for name in NAMES:
        rows = (two_runs / name / "episodes.csv").read_text().splitlines()
        column = rows[0].split(",").index("accuracy")
        values = [float(row.split(",")[column]) for row in rows[1:]]
        points = boards[name].Scalars("accuracy/test")
        assert [point.step for point in points][-1] == len(values) == 30
        for point in points:
            mean = math.fsum(values[: point.step]) / point.step
            assert point.value == pytest.approx(mean, rel=1e-5)
        told = results(two_runs / name)["metrics"]["accuracy"]["mean"]
        assert points[-1].value == pytest.approx(told, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_tests_figures_are_a_table(
    name: str, two_runs: Path, boards: dict[str, EventAccumulator]
) -> None:
    found = results(two_runs / name)
    table = text(boards[name], "test/figures")
    accuracy, ci95 = (found["metrics"]["accuracy"][key] for key in ("mean", "ci95"))
    assert f"| test/accuracy | {accuracy:.6g} ± {ci95:.3g} |" in table
    assert f"| test/ece | {found['calibration']['ece']:.6g} |" in table
    assert "| test/episodes_per_second |" in table
    assert "test/class" not in table
    classes = text(boards[name], "test/classes").splitlines()
    assert classes[0] == "| class | accuracy | ci95 | episodes | queries |"
    assert len(classes) == 2 + len(found["by_class"])
    assert not any("nan" in line for line in classes)


@pytest.mark.parametrize("name", NAMES)
def test_a_run_has_its_pictures_spreads_and_config(
    name: str, boards: dict[str, EventAccumulator]
) -> None:
    tags = boards[name].Tags()
    pictures = {"val/episode", "test/episode", "test/confusion", "test/histogram"}
    pictures |= {"test/reliability"}
    curves = {"val/adaptation", "test/adaptation"} if name == NAMES[1] else set()
    assert set(tags["images"]) == pictures | curves
    assert set(tags["histograms"]) == {"episodes/val_accuracy", "episodes/test_accuracy"}
    assert len(boards[name].Histograms("episodes/val_accuracy")) == 3  # of each validation
    (spread,) = boards[name].Histograms("episodes/test_accuracy")
    assert spread.histogram_value.num == 30
    assert "    seed_everything: 0" in text(boards[name], "config").splitlines()


def row(events: EventAccumulator) -> dict[str, Any]:
    held = events.summary_metadata
    assert metadata.EXPERIMENT_TAG not in held, "the first run's columns would be every run's"
    assert metadata.SESSION_END_INFO_TAG in held
    start = metadata.parse_session_start_info_plugin_data(
        held[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    return {name: value.number_value or value.string_value for name, value in start.hparams.items()}


def test_runs_of_other_learners_are_rows_of_one_table(boards: dict[str, EventAccumulator]) -> None:
    one, two = (row(boards[name]) for name in NAMES)
    same = {"Benchmark": "Glyphs", "Way": "5", "Shot": "1", "backbone": "Conv4"}
    for found in (one, two):
        assert {name: found[name] for name in same} == same
        # TensorBoard shows five: those that differ, then by the alphabet
        assert sorted(found)[:5] == ["Benchmark", "Learner", "Outer lr", "Shot", "Way"]
    assert (one["Learner"], one["distance"]) == ("PrototypicalNetwork", "euclidean")
    assert (two["Learner"], two["Outer lr"]) == ("MAML", 0.001)
    assert two["inner_lr"] == pytest.approx(0.4)
    assert one["learn_scale"] == "false"


def test_the_documented_examples_are_true() -> None:
    assert doctest.testmod(board) == (0, 3)


def test_other_names_stay() -> None:
    found = {
        "val/mse_step0": "mse/val_step0",
        "val/accuracy on dtd": "accuracy/val on dtd",
        "best/val_mse": "mse/best_val",
        "val/iou_sky": "iou/val_sky",
        "train/val_x": "val_x/train",
        "train/skipped": "skipped/train",
        "memorisation/gap": "memorisation/gap",
        "own": "own",
        "training/x": "training/x",
    }
    assert {name: chart(name) for name in found} == found
    assert chart("val/accuracy_step2_ci95") is None


def test_what_a_table_would_break_on_is_escaped() -> None:
    assert markdown(("a",), [("x|y\nz",)]).splitlines()[2] == "| x\\|y z |"


def test_figures_of_a_users_own_test_are_kept(tmp_path: Path) -> None:
    """Logged by whom ever, without a Trainer, and of a test that was repeated."""
    logger = BoardLogger(str(tmp_path), version="run")
    for value in (1.0, 2.0):
        logger.log_metrics({"test/own": value, "test/own_ci95": math.nan, "val/own": value}, 7)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "lightning_logs/run"))
    events.Reload()
    tables = [event.tensor_proto.string_val[0].decode() for event in events.Tensors("test/figures")]
    assert [table.splitlines()[2] for table in tables] == ["| test/own | 1 |", "| test/own | 2 |"]
    assert events.Tags()["scalars"] == ["own/val"]
