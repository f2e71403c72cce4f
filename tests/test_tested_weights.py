"""A test says what it tested: untrained or broken weights, and results that JSON can hold."""

import json
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from commands import FEW, QUIET, SINUSOID, fewshot, fit, results
from torch import nn

from fewshot import MAML, MLP, BaselinePlusPlus, Conv4, PrototypicalNetwork, SinusoidDataModule
from fewshot.callbacks.results import ResultsWriter, strict
from fewshot.cli.main import main
from fewshot.errors import FewshotError

pytestmark = pytest.mark.usefixtures("undrawn")

WAY = {"kind": "classification", "way": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(tmp_path_factory.mktemp("trained"), *SINUSOID, "--seed_everything=3")


def test_results_hold_the_seed_of_training_beside_that_of_the_data(
    trained: Path, tmp_path: Path
) -> None:
    best = trained / "checkpoints/best.ckpt"
    again = fewshot("test", tmp_path, *SINUSOID, f"--ckpt_path={best}", "--data.seed=5")
    for run, seed in ((trained, 0), (again, 5)):
        found = results(run)
        assert (found["seed_everything"], found["seed"], found["untrained"]) == (3, seed, False)


def test_a_learner_without_a_checkpoint_is_called_untrained(
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = fewshot("test", tmp_path, *SINUSOID)
    out = capsys.readouterr().out
    assert results(run)["untrained"] is True
    assert "UNTRAINED weights" in " ".join(out.split())
    assert caplog.text.count("MAML is untrained: no checkpoint is given") == 1
    caplog.clear()
    best = trained / "checkpoints/best.ckpt"
    run = fewshot("test", tmp_path, *SINUSOID, f"--ckpt_path={best}")
    out = capsys.readouterr().out
    assert results(run)["untrained"] is False
    assert "UNTRAINED" not in out
    assert "untrained" not in caplog.text


def test_what_counts_as_untrained(trained: Path) -> None:
    class Given(nn.Module):
        out_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 3)

    class Published(MLP):
        pretrained = True

    assert PrototypicalNetwork(MLP(in_features=2), task=WAY).untrained
    assert not PrototypicalNetwork(Published(in_features=2), task=WAY).untrained
    assert not PrototypicalNetwork(Given(), task=WAY).untrained, (
        "nothing is known of one's own network"
    )
    assert MAML(Published(in_features=2), task=WAY).untrained, "its head is random"
    # with only plain examples to train on there is nothing else that a test would use
    assert not BaselinePlusPlus(Published(in_features=2), task=WAY, train_classes=2).untrained
    assert BaselinePlusPlus(MLP(in_features=2), task=WAY, train_classes=2).untrained
    other = MAML(MLP(in_features=2), task=WAY)
    other.load_state_dict(other.state_dict())
    assert not other.untrained
    best = trained / "checkpoints/best.ckpt"
    assert not MAML.load_from_checkpoint(best).untrained


def broken(checkpoint: Path, path: Path, value: float) -> Path:
    """The checkpoint with one value of one weight replaced."""
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content["state_dict"].values())).flatten()[0] = value
    torch.save(content, path)
    return path


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("command", ["test", "fit", "validate", "predict", "weights"])
def test_weights_that_are_not_finite_are_refused(
    command: str,
    value: float,
    trained: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = broken(trained / "checkpoints/best.ckpt", tmp_path / "broken.ckpt", value)
    given = f"--model.weights={path}" if command == "weights" else f"--ckpt_path={path}"
    root = f"--trainer.default_root_dir={tmp_path}"
    on = ("--trainer.max_epochs=2", "--seed_everything=3") if command == "fit" else ()
    args = (*SINUSOID, *FEW, *QUIET, *on, given, root)
    capsys.readouterr()
    assert main(["test" if command == "weights" else command, *args]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "that are not finite (NaN or infinite); give weights of before they diverged" in line
    assert not list(tmp_path.rglob("results.json"))
    with pytest.raises(FewshotError, match="not finite"):
        MAML.load_from_checkpoint(path)


def test_weights_at_hand_are_looked_at_too(tmp_path: Path) -> None:
    benchmark = SinusoidDataModule(shot=3, queries=4, val_episodes=2, test_episodes=2)
    learner = MAML(MLP(in_features=1), task=benchmark.task)
    quiet: dict[str, Any] = dict.fromkeys(
        ("enable_progress_bar", "enable_checkpointing", "enable_model_summary", "logger"), False
    )
    trainer = L.Trainer(default_root_dir=tmp_path, accelerator="cpu", **quiet)
    next(learner.parameters()).data.flatten()[0] = math.nan
    for verb in (trainer.test, trainer.validate, trainer.predict):
        with pytest.raises(FewshotError, match=r"MAML has values in .* that are not finite"):
            verb(learner, datamodule=benchmark)


def test_a_running_average_that_is_not_finite_is_refused() -> None:
    learner = PrototypicalNetwork(Conv4(in_channels=1, image_size=16, width=4), task=WAY)
    learner.check_weights()
    name, average = next(n for n in learner.named_buffers() if n[0].endswith("running_var"))
    average[0] = math.inf
    with pytest.raises(FewshotError, match=f"values in {name} that are not finite"):
        learner.check_weights()


def test_what_is_infinite_by_design_stays() -> None:
    class Masked(MLP):
        def __init__(self, in_features: int) -> None:
            super().__init__(in_features)
            self.register_buffer("mask", torch.full((2, 2), -math.inf))

    learner = PrototypicalNetwork(Masked(in_features=2), task=WAY)
    learner.check_weights()
    content = {
        "state_dict": learner.state_dict(),
        "fewshot": {"learner": "PrototypicalNetwork", "version": "0"},
    }
    learner.on_load_checkpoint(content)


def test_numbers_that_are_not_finite_are_null() -> None:
    value = {"a": math.nan, "b": [1.0, -math.inf, {"c": (math.inf, 2)}], "d": "nan", "e": True}
    expected = {"a": None, "b": [1.0, None, {"c": [None, 2]}], "d": "nan", "e": True}
    assert strict(value) == expected
    json.dumps(strict(value), allow_nan=False)


def test_results_of_answers_that_are_no_numbers_are_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark = SinusoidDataModule(shot=3, queries=4, val_episodes=2, test_episodes=4)
    learner = MAML(MLP(in_features=1), task=benchmark.task, inner_lr=1e30, inner_steps=3)
    quiet: dict[str, Any] = dict.fromkeys(
        ("enable_progress_bar", "enable_checkpointing", "enable_model_summary", "logger"), False
    )
    trainer = L.Trainer(
        default_root_dir=tmp_path, accelerator="cpu", callbacks=[ResultsWriter()], **quiet
    )
    trainer.test(learner, datamodule=benchmark, verbose=False)

    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    text = (tmp_path / "results.json").read_text()
    found = json.loads(text, parse_constant=refuse)
    assert found["metrics"]["mse"] == {"mean": None, "ci95": None, "std": None}
    assert "? ± ?" in capsys.readouterr().out
