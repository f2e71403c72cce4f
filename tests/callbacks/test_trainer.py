"""`fewshot.Trainer` and `fewshot.evaluate`: what a run of the command line has, from Python."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from rich.console import Console

import fewshot
from fewshot import MAML, MLP, FewshotError, SinusoidDataModule

QUIET: dict[str, Any] = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "max_epochs": 1,
}


def parts() -> tuple[MAML, SinusoidDataModule]:
    sizes: dict[str, Any] = {
        "train_episodes": 4,
        "val_episodes": 2,
        "test_episodes": 5,
        "meta_batch_size": 2,
    }
    data = SinusoidDataModule(**sizes)
    torch.manual_seed(0)
    return MAML(MLP(1, hidden=[8]), task=data.task), data


def test_a_run_leaves_what_the_command_line_leaves(tmp_path: Path) -> None:
    learner, data = parts()
    for number in range(2):
        trainer = fewshot.Trainer(default_root_dir=tmp_path, **QUIET)
        trainer.fit(learner, data)
        trainer.test(learner, data, ckpt_path="best")
        run = tmp_path / f"lightning_logs/maml-sinusoid-10shot-{number}"
        assert {p.name for p in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
        found = json.loads((run / "results.json").read_text())
        assert (found["benchmark"], found["episodes"]) == ("Sinusoid", 5)
        assert (run / "episodes.csv").is_file()
        assert list(run.glob("events.out.tfevents.*"))
    assert len(list((tmp_path / "lightning_logs").iterdir())) == 2


def test_a_validation_leaves_results_but_keeps_a_tests(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learner, data = parts()
    trainer = fewshot.Trainer(default_root_dir=tmp_path, **QUIET)
    file = tmp_path / "lightning_logs/maml-sinusoid-10shot-0/results.json"
    stages = []
    for run in (trainer.validate, trainer.test, trainer.validate):
        run(learner, data)
        found = json.loads(file.read_text())
        stages.append((found.get("stage", "test"), found["episodes"]))
    assert stages == [("validation", 2), ("test", 5), ("test", 5)]
    out = " ".join(capsys.readouterr().out.split())
    assert out.count("2 validation episodes") == 2
    assert out.count("has the results of a test") == 1


def test_what_a_user_gives_takes_the_place_of_ours(tmp_path: Path) -> None:
    learner, data = parts()
    own = ModelCheckpoint(filename="mine", monitor="val/mse")
    trainer = fewshot.Trainer(
        default_root_dir=tmp_path,
        run_name="tried",
        callbacks=own,
        logger=CSVLogger(tmp_path, name="tables"),
        **QUIET,
    )
    trainer.fit(learner, datamodule=data)
    run = tmp_path / "tables/tried-0"
    assert {p.name for p in (run / "checkpoints").iterdir()} == {"mine.ckpt", "last.ckpt"}
    assert (run / "metrics.csv").is_file()


def test_a_dry_run_leaves_nothing(tmp_path: Path) -> None:
    learner, data = parts()
    fewshot.Trainer(default_root_dir=tmp_path, **{**QUIET, "fast_dev_run": True}).fit(learner, data)
    assert list(tmp_path.iterdir()) == []


def test_a_misspelt_argument() -> None:
    with pytest.raises(FewshotError, match="no argument 'max_epohcs'; did you mean 'max_epochs'"):
        fewshot.Trainer(max_epohcs=1)  # type: ignore[call-arg]


def test_an_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    learner, data = parts()
    found = fewshot.evaluate(learner, data, progress=False)
    assert list(tmp_path.iterdir()) == [], "nothing is written"
    assert found["mse"].mean == pytest.approx(sum(found.episodes["mse"]) / 5)
    assert found.results["metrics"]["mse"]["mean"] == found["mse"].mean
    assert "MAML on Sinusoid" in str(found)
    assert "5 test episodes" in repr(found)
    html = found._repr_html_()
    assert html.startswith("<table>")
    assert "<td>mse</td>" in html
    again = fewshot.evaluate(learner, data, progress=False)
    assert again.episodes == found.episodes


def test_an_evaluation_is_text_in_a_notebook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich shows in the notebook what is printed to a file, and leaves the file empty."""
    found = fewshot.evaluate(*parts(), progress=False)
    shell = type("ZMQInteractiveShell", (), {})()
    monkeypatch.setattr(builtins, "get_ipython", lambda: shell, raising=False)
    assert Console().is_jupyter
    assert "MAML on Sinusoid" in str(found)


def test_an_evaluation_of_a_checkpoint(tmp_path: Path) -> None:
    learner, data = parts()
    trainer = fewshot.Trainer(default_root_dir=tmp_path, **QUIET)
    trainer.fit(learner, data)
    trainer.test(learner, data, ckpt_path="last")
    file = tmp_path / "lightning_logs/maml-sinusoid-10shot-0/checkpoints/last.ckpt"
    found = fewshot.evaluate(parts()[0], data, file, progress=False)
    assert found["mse"] == learner.estimates["test"]["mse"]
    assert found.results["checkpoint"] == str(file)
    assert not found.results["untrained"]


def test_the_table_of_an_evaluation() -> None:
    pytest.importorskip("pandas", reason="needs the extra fewshot-lightning[pandas]")
    found = fewshot.evaluate(*parts(), progress=False)
    table = found.to_pandas()
    assert table.index.tolist() == [0, 1, 2, 3, 4]
    assert table["mse"].mean() == pytest.approx(found["mse"].mean)


def test_a_metric_and_an_argument_that_an_evaluation_lacks() -> None:
    learner, data = parts()
    wrong: dict[str, Any] = {"precison": "32-true"}
    with pytest.raises(FewshotError, match=r"'precison'; did you mean 'precision'\?"):
        fewshot.evaluate(learner, data, **wrong)
    found = fewshot.evaluate(learner, data, progress=False)
    with pytest.raises(FewshotError, match="no metric 'accuracy'; choose from loss, mse"):
        found["accuracy"]


def test_what_is_no_learner_and_no_benchmark() -> None:
    learner, data = parts()
    with pytest.raises(
        FewshotError, match=r"SinusoidDataModule is no fewshot\.MetaLearner; give one"
    ):
        fewshot.evaluate(data, learner)  # type: ignore[arg-type]
    with pytest.raises(FewshotError, match=r"str is no fewshot\.EpisodicDataModule"):
        fewshot.evaluate(learner, "Sinusoid")  # type: ignore[arg-type]
