"""A run chooses a temperature at each validation, keeps it, and says how right its probabilities are."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from commands import SINUSOID, fewshot, fit, results

from fewshot.cli.main import run as run_command
from fewshot.datamodules import GlyphsDataModule
from fewshot.episodes.types import MetaBatch
from fewshot.learners.checkpoints import read_checkpoint
from fewshot.tasks.calibration import best_temperature, nll_by_temperature, smoothed

ARGS = (
    *("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--model.backbone.width=4"),
    *("--data=GlyphsDataModule", "--data.queries=3"),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two steps, tested."""
    return fit(tmp_path_factory.mktemp("run"), *ARGS)


def outputs(run: Path, stage: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels of all queries of the validation or test episodes of a run's last weights."""
    import fewshot as library

    learner = library.load(run / "checkpoints/last.ckpt", device="cpu").module
    data = GlyphsDataModule(queries=3, val_episodes=2, test_episodes=3)
    data.prepare_data()
    data.setup(stage)
    logits, labels = [], []
    for batch in data.val_dataloader() if stage == "validate" else data.test_dataloader():
        for part in data.on_after_batch_transfer(MetaBatch.of(batch), 0).parts:
            logits.append(learner.evaluate(part).outputs.flatten(0, 1))
            labels.append(part.query.targets.flatten())
    return torch.cat(logits), torch.cat(labels)


def test_the_temperature_is_that_of_the_validation_episodes(trained: Path) -> None:
    held = read_checkpoint(trained / "checkpoints/last.ckpt")["fewshot"]
    logits, labels = outputs(trained, "validate")
    # in the same precision: two steps leave a flat optimum
    sums = smoothed(nll_by_temperature(logits, labels), len(labels))
    assert held["temperature"] == pytest.approx(best_temperature(sums), rel=1e-3)
    assert held["validated"]["way"] == 5
    assert held["validated"]["shot"] == 1
    assert held["validated"]["episodes"] == 2
    right = (logits.argmax(-1) == labels).float().mean().item()
    assert held["validated"]["accuracy"] == pytest.approx(right)


def test_results_say_how_right_the_probabilities_are(trained: Path) -> None:
    found = results(trained)["calibration"]
    logits, labels = outputs(trained, "test")
    temperature = read_checkpoint(trained / "checkpoints/last.ckpt")["fewshot"]["temperature"]
    assert found["temperature"] == temperature
    for values, at in ((found, temperature), (found["uncalibrated"], 1.0)):
        assert values["nll"] == pytest.approx(F.cross_entropy(logits / at, labels).item(), rel=1e-4)
    assert found.keys() == {"temperature", "ece", "brier", "nll", "uncalibrated"}


def test_predictions_of_test_episodes_are_calibrated_too(trained: Path, tmp_path: Path) -> None:
    checkpoint = trained / "checkpoints/last.ckpt"
    run = fewshot("predict", tmp_path, *ARGS, f"--ckpt_path={checkpoint}")
    with (run / "predictions.csv").open() as file:
        given = [float(row["probability"]) for row in csv.DictReader(file)]
    logits, _ = outputs(trained, "test")
    temperature = read_checkpoint(checkpoint)["fewshot"]["temperature"]
    expected = (logits / temperature).softmax(-1).amax(-1).tolist()
    assert given == pytest.approx(expected, abs=1e-4)


def test_a_look_at_untrained_weights_chooses_nothing(tmp_path: Path) -> None:
    args = (*ARGS, "--data.train_episodes=4", "--data.val_episodes=2", "--trainer.max_epochs=1")
    quiet = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false")
    none: Any = "--trainer.limit_val_batches=0"
    cli = run_command(
        [
            "fit",
            *args,
            *quiet,
            none,
            "--test_after_fit=false",
            f"--trainer.default_root_dir={tmp_path}",
        ]
    )
    assert cli is not None
    assert cli.model.softmax_temperature is None


def test_values_have_no_probabilities(tmp_path: Path) -> None:
    found = results(fit(tmp_path, *SINUSOID))
    assert "calibration" not in found
