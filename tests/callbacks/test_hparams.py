"""What TensorBoard's HPARAMS, SCALARS and TEXT show of runs, read by TensorBoard itself."""

from pathlib import Path

import pytest
from commands import FEW, SINUSOID, fit, results
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata


def shown(run: Path) -> EventAccumulator:
    found = EventAccumulator(str(run), size_guidance={"scalars": 0})
    found.Reload()
    return found


def test_a_run_is_a_row_of_hparams_with_its_best_validation_and_its_test(tmp_path: Path) -> None:
    flags = ("--trainer.max_epochs=3", "--model.inner_lr=0.02", "--model.inner_steps=2")
    run = fit(tmp_path, *SINUSOID, *FEW, *flags)
    events = shown(run)
    assert "hp_metric" not in events.Tags()["scalars"]
    held = events.summary_metadata
    start = metadata.parse_session_start_info_plugin_data(
        held[metadata.SESSION_START_INFO_TAG].plugin_data.content
    )
    row = {name: value.number_value or value.string_value for name, value in start.hparams.items()}
    expected = {
        "Learner": "MAML", "backbone": "MLP", "Benchmark": "Sinusoid", "Shot": "10", "Outer lr": 0.001,
        "inner_lr": 0.02, "inner_steps": 2, "meta_batch_size": 4, "optimizer": "Adam", "max_epochs": 3,
    }  # fmt: skip
    assert {name: row.get(name) for name in expected} == expected
    best = [scalar.value for scalar in events.Scalars("mse/best_val")]
    validated = [scalar.value for scalar in events.Scalars("mse/val")]
    assert best == [min(validated[: n + 1]) for n in range(3)]
    tested = events.Scalars("mse/test")[-1].value
    assert tested == pytest.approx(results(run)["metrics"]["mse"]["mean"], rel=1e-6)
    text = events.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "inner_lr: 0.02" in text
