"""Tests, validations and predictions that a signal stops: what was evaluated so far is kept."""

import csv
import os
import signal
import subprocess
from pathlib import Path

import lightning as L
import pytest
from commands import SINUSOID, results, runs
from forks import python

from fewshot import MAML, MLP, SinusoidDataModule
from fewshot.callbacks.interruption import Interruption
from fewshot.cli.main import main
from fewshot.cli.runs import read_results
from fewshot.errors import FewshotError

pytestmark = pytest.mark.usefixtures("undrawn")

HERE = Path(__file__).resolve().parent
RUN = (
    *SINUSOID,
    *("--data.train_episodes=4", "--data.val_episodes=7", "--data.test_episodes=7"),
    *("--data.queries=3", "--data.eval_batch_size=2", "--trainer.max_epochs=1"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
    *("--trainer.num_sanity_val_steps=0", "--trainer.accelerator=cpu"),
)
"""Seven episodes to judge by, in four batches."""


def run_of(root: Path) -> Path:
    """The folder of the only run."""
    (run,) = runs(root)
    return run


def rows(root: Path, name: str = "episodes") -> list[dict[str, str]]:
    with (run_of(root) / f"{name}.csv").open() as file:
        return list(csv.DictReader(file))


def disturbed(number: int, batch: int, root: Path, *more: str) -> list[str]:
    sends = (f"--trainer.callbacks.number={int(number)}", f"--trainer.callbacks.batch={batch}")
    root_option = f"--trainer.default_root_dir={root}"
    callback = "--trainer.callbacks=disturbances.SignalsEvaluation"
    return [*RUN, root_option, callback, *sends, *more]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """The rows of an undisturbed test."""
    root = tmp_path_factory.mktemp("whole")
    assert main(["test", *RUN, f"--trainer.default_root_dir={root}"]) == 0
    assert results(run_of(root))["partial"] is False
    return rows(root)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_a_test_keeps_what_was_evaluated(
    number: signal.Signals,
    status: int,
    whole: list[dict[str, str]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        main(["test", *disturbed(number, 1, tmp_path)])
    assert stop.value.code == status
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    found = results(run_of(tmp_path))
    assert (found["partial"], found["episodes"]) == (True, len(rows(tmp_path)))
    assert 0 < len(rows(tmp_path)) < len(whole)
    assert rows(tmp_path) == whole[: len(rows(tmp_path))]
    said = capfd.readouterr()
    assert f"stopped by {number.name} after" in said.err
    assert "of 4 meta-batches" in said.err
    assert "PARTIAL" in said.out
    with pytest.raises(FewshotError, match="of a test that was stopped after"):
        read_results(run_of(tmp_path))


def test_the_test_after_a_fit(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", *disturbed(signal.SIGTERM, 1, tmp_path)])
    assert stop.value.code == 143
    assert results(run_of(tmp_path))["partial"] is True
    assert (run_of(tmp_path) / "checkpoints/best.ckpt").is_file()


class SignalsSanityCheck(L.Callback):
    """Send a signal when Lightning tries a validation before training."""

    def on_sanity_check_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_a_signal_before_the_first_step_ends_the_run(tmp_path: Path) -> None:
    trainer = L.Trainer(
        callbacks=[Interruption(), SignalsSanityCheck()],
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=1,
        default_root_dir=tmp_path,
    )
    benchmark = SinusoidDataModule(meta_batch_size=4, train_episodes=8, val_episodes=4)
    learner = MAML(MLP(in_features=1), task=benchmark.task)
    with pytest.raises(SystemExit) as stop:
        trainer.fit(learner, benchmark)
    assert stop.value.code == 143
    assert trainer.global_step <= 1, "the step under way is finished"


def test_a_validation_prints_what_it_has(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["validate", *disturbed(signal.SIGTERM, 2, tmp_path)])
    assert stop.value.code == 143
    said = capfd.readouterr()
    assert "PARTIAL: the validation was stopped" in " ".join(said.out.split())
    (run,) = runs(tmp_path)
    assert results(run)["partial"]
    assert "stopped by SIGTERM after" in said.err


def test_a_prediction_writes_what_it_has(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["predict", *disturbed(signal.SIGINT, 1, tmp_path)])
    assert stop.value.code == 130
    found = rows(tmp_path, "predictions")
    assert 0 < len(found) < 7 * 3
    assert [row["episode"] for row in found] == [str(i // 3) for i in range(len(found))]


def test_a_signal_in_the_last_batch_leaves_a_whole_test(
    whole: list[dict[str, str]], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["test", *disturbed(signal.SIGTERM, 3, tmp_path)])
    assert stop.value.code == 143
    assert rows(tmp_path) == whole
    assert results(run_of(tmp_path))["partial"] is False


def test_ctrl_c_twice_stops_at_once(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["test", *disturbed(signal.SIGINT, 1, tmp_path, "--trainer.callbacks.twice=true")])
    assert stop.value.code == 130
    assert not list(tmp_path.rglob("results.json"))


def test_ctrl_c_outside_of_a_run_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fewshot.cli.main.run", interrupted)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "fewshot: stopped by Ctrl-C\n"


@pytest.mark.parametrize(
    ("batch", "episodes"), [(1, 4), pytest.param(2, 7, marks=pytest.mark.slow)]
)
def test_two_ranks_stop_together(batch: int, episodes: int, tmp_path: Path) -> None:
    """The second rank has three episodes, the first a fourth, which nobody may wait for."""
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.callbacks.rank=1"]
    two += ["--data.eval_batch_size=1"]
    ran = subprocess.run(
        [
            *(python(), "-m", "fewshot", "test"),
            *disturbed(signal.SIGTERM, batch, tmp_path, *two),
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 143, ran.stderr[-3000:]
    assert [row["episode"] for row in rows(tmp_path)] == [str(i) for i in range(episodes)]
    assert results(run_of(tmp_path))["partial"] == (episodes < 7)
