"""`fewshot sweep --search`: trials chosen by validations alone, ended early, gone on with."""

import csv
import importlib
import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from commands import FEW, QUIET
from sweeps import PROGRAM, Sweep, calls, sweep_in

from fewshot.cli import sweep_jobs, sweep_search, sweep_tuning
from fewshot.cli.built import Judge, judge
from fewshot.cli.main import main
from fewshot.cli.sweep_ranges import read_range
from fewshot.cli.sweep_study import Plan, Study
from fewshot.errors import FewshotError
from fewshot.files.claims import lock_of_one
from fewshot.tasks import Regression

pytestmark = pytest.mark.usefixtures("undrawn")

optuna = pytest.importorskip("optuna")
HERE = Path(__file__).resolve().parent
RATE = ("--data", "Glyphs", "--search", "optuna", "--model.inner_lr", "0.001:1:log")
MAML = ("--model", "MAML", *RATE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the searches, whose runs are not real ones."""

    def judges(runs: Sequence[Sequence[str]]) -> list[Judge]:
        return [Judge("accuracy", "max", "%") for _ in runs]

    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sweep_jobs, "PROGRAM", PROGRAM)
    monkeypatch.setattr(sweep_jobs, "POLL", 0.005)
    monkeypatch.setattr(sweep_tuning, "judges", judges)
    (tmp_path / "sweep").mkdir()
    return tmp_path / "sweep"


@pytest.fixture
def sweep(folder: Path, capfd: pytest.CaptureFixture[str]) -> Sweep:
    return sweep_in(folder, capfd)


def rows(folder: Path, file: str = "trials.csv") -> list[dict[str, str]]:
    with (folder / file).open(newline="") as stream:
        return [*csv.DictReader(stream)]


# ------------------------------------------------------------------ to the end


def test_the_best_setting_is_found_then_tested(sweep: Sweep, folder: Path) -> None:
    out = sweep(*MAML, "--trials", "8", "--pruner", "none")
    trials, (best, *others) = calls(folder)[:-1], calls(folder)[-1:]
    assert others == []
    assert [name for name, *_ in trials] == [f"trial-{n}" for n in range(8)]
    assert all(is_trial for *_, is_trial in trials)
    assert not best[3]  # the one that was tested
    table = rows(folder)
    assert table[0]["trial"] == best[0]
    values = [float(row["accuracy (%)"]) for row in table]
    assert values == sorted(values, reverse=True)
    rates = [float(row["inner_lr"]) for row in table]
    off = [abs(math.log10(rate) + 1) for rate in rates]
    assert off == sorted(off)
    assert best[1] == str(folder / f"lightning_logs/{best[0]}-0")  # the trial itself goes on
    assert [p.parent.name for p in folder.glob("lightning_logs/*/results.json")] == [f"{best[0]}-0"]
    assert "accuracy on Glyphs, 5-way 1-shot" in out
    assert (
        f"the best setting, {best[0]}: fewshot fit --model=MAML --data=GlyphsDataModule --model.inner_lr="
        in out
    )


def test_the_same_command_repeats_nothing_and_more_trials_add(sweep: Sweep, folder: Path) -> None:
    sweep(*MAML, "--trials=3", "--pruner=none")
    before = calls(folder)
    table = (folder / "trials.csv").read_text()
    sweep(*MAML, "--trials=3", "--pruner=none")
    assert calls(folder) == before
    assert (folder / "trials.csv").read_text() == table
    sweep(*MAML, "--trials=5", "--pruner=none", "--jobs=2")
    assert sorted(name for name, *_, is_trial in calls(folder)[4:] if is_trial) == [
        "trial-3",
        "trial-4",
    ]


def test_what_falls_behind_is_pruned_and_marked(sweep: Sweep, folder: Path) -> None:
    out = sweep(*MAML, "--trials", "12")
    table = rows(folder)
    pruned = [row for row in table if row["mark"] == "pruned"]
    assert 1 <= len(pruned) <= 7  # never of the first five
    assert table[-len(pruned) :] == pruned  # they stand below
    assert {int(row["trial"].removeprefix("trial-")) for row in pruned}.isdisjoint(range(5))
    assert "pruned after 1 validation," in out


def test_a_pruned_trial_ends_its_run(
    sweep: Sweep, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(*MAML, "--trials", "5", "--seed", "3")
    # the sixth would go on for a minute after its first validation
    monkeypatch.setattr(sweep_search, "placed", lambda args, values: (*args[:-1], WORST))
    (folder / "waits").write_text("trial-5")
    began = time.monotonic()
    sweep(*MAML, "--trials", "6", "--seed", "3")
    assert time.monotonic() - began < 20
    run = folder / "lightning_logs/trial-5-0"
    assert (run / "checkpoints/last.ckpt").exists()
    assert len(json.loads((run / "validations.json").read_text())) == 1
    assert rows(folder)[-1]["mark"] == "pruned"


WORST = "--model.inner_lr=1e-9"


def test_each_combination_is_searched_and_seeds_are_not_chosen_from(
    sweep: Sweep, folder: Path
) -> None:
    out = sweep(
        *("--model", "MAML", "ANIL", *RATE, "--seed_everything", "7", "8", "9", "--trials", "2")
    )
    tested = [name for name, *_, is_trial in calls(folder) if not is_trial]
    assert [name.partition("-")[0] for name in tested] == ["MAML"] * 3 + ["ANIL"] * 3
    assert [name.partition("=")[2] for name in tested] == ["", "8", "9"] * 2
    assert len(rows(folder, "trials-MAML.csv")) == len(rows(folder, "trials-ANIL.csv")) == 2
    with (folder / "comparison.csv").open(newline="") as file:
        assert [row["seeds"] for row in csv.DictReader(file)] == ["7 8 9"] * 2
    assert "MAML: trials, by the best accuracy of their validations" in out


def test_settings_that_come_twice_are_tried_once(sweep: Sweep, folder: Path) -> None:
    args = ("--model=MAML", "--data=Glyphs", "--search=optuna", "--data.way=2:3", "--pruner=none")
    sweep(*args, "--trials=6", "--jobs=2")
    assert len([name for name, *_, is_trial in calls(folder) if is_trial]) == 2
    assert sum("the same as trial-" in row["mark"] for row in rows(folder)) == 4


def test_the_same_seed_chooses_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    plan = Plan({"lr": read_range("lr", "0.1:1"), "n": read_range("n", "1:9")}, 12, 5, "median")

    def opened(plan: Plan, folder: str) -> Study:
        study = Study(tmp_path / folder, "a", "min", plan)
        request.addfinalizer(study.close)
        return study

    def tried(folder: str, stops: tuple[int, ...] = (), seed: int = 5) -> list[dict[str, Any]]:
        (tmp_path / folder).mkdir()
        study, found = opened(plan._replace(seed=seed), folder), []
        while trial := study.ask():
            if trial.number in stops:  # in the middle of it
                study = opened(plan, folder)
                again = study.ask()
                assert again
                assert (again.number, again.values) == (trial.number, trial.values)
                trial = again
            found.append(trial.values)
            trial.take([trial.values["lr"] * trial.values["n"]])
            study.end(trial, "COMPLETE")
        return found

    whole = tried("whole")
    assert len(whole) == 12
    assert whole == tried("stopped", stops=(0, 4, 11))
    assert tried("other", seed=6)[0] != whole[0]


# ------------------------------------------------------------------ stopped, failed


def test_a_search_that_is_killed_goes_on(sweep: Sweep, folder: Path) -> None:
    args = (*MAML, "--trials=4", "--pruner=none")
    (folder / "waits").write_text("trial-2")
    code = (
        f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
        "from fewshot.cli import sweep_jobs, sweep_tuning\n"
        "from fewshot.cli.built import Judge\n"
        "from fewshot.cli.main import main\n"
        f"sweep_jobs.PROGRAM = {sweep_jobs.PROGRAM!r}\n"
        "sweep_tuning.judges = lambda runs: [Judge('accuracy', 'max', '%') for _ in runs]\n"
        f"main(['sweep', *{args!r}, '--folder={folder}'])\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL)
    wait_for(folder / "trial-2.ready")
    process.kill()
    process.wait()
    done = [name for name, *_ in calls(folder)]
    assert done == ["trial-0", "trial-1", "trial-2"]
    (folder / "waits").unlink()
    run = folder / "lightning_logs/trial-2-0"
    (run / "checkpoints/last.ckpt").touch()
    out = sweep(*args)
    assert "[3/4] trial-2" in out
    assert [call[:2] for call in calls(folder)[3:5]] == [["trial-2", str(run)], ["trial-3", None]]
    assert len(calls(folder)) == 6  # and the test
    assert len(rows(folder)) == 4


def wait_for(file: Path) -> None:
    until = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_signal_ends_the_trials_with_their_checkpoints(
    sweep: Sweep, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "waits").write_text("trial-1")

    def sleep(seconds: float, sleeps: Callable[[float], None] = time.sleep) -> None:
        sleeps(seconds)
        if (folder / "trial-1.ready").exists() and (folder / "waits").exists():
            (folder / "waits").unlink()
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(time, "sleep", sleep)
    out = sweep(*MAML, "--trials=3", code=143)
    assert "stopping 1 under way" in out
    run = folder / "lightning_logs/trial-1-0"
    assert (run / "checkpoints/last.ckpt").exists()
    assert "trial-1: model.inner_lr" in (out := sweep(*MAML, "--trials=3"))
    assert "goes on" in out
    assert [name for name, *_, is_trial in calls(folder) if is_trial] == [
        *("trial-0", "trial-1", "trial-1", "trial-2")
    ]


def test_trials_that_fail_are_told_and_tried_again(sweep: Sweep, folder: Path) -> None:
    (folder / "fails").write_text("trial-1")
    out = sweep(*MAML, "--trials=3", "--pruner=none", code=2)
    assert "trial-1: failed: lr is x; give a number" in out
    assert "1 of 3 trials are not done; the same command tries them again" in out
    assert rows(folder)[-1]["mark"] == "failed: lr is x; give a number"
    (folder / "fails").unlink()
    sweep(*MAML, "--trials=3", "--pruner=none")
    assert [row["mark"] for row in rows(folder)] == ["", "", ""]


def test_trials_without_values(sweep: Sweep, folder: Path) -> None:
    (folder / "mute").write_text("trial-0")
    (folder / "diverges").write_text("trial-1")
    out = sweep(*MAML, "--trials=2", code=2)
    assert "trial-0: failed: it ended well, but without accuracy" in out
    assert "trial-1: accuracy unknown, pruned after 3 validations, no value is finite" in out
    assert "no trial went to its end" in out


def test_what_another_process_does_is_left_to_it(sweep: Sweep, folder: Path) -> None:
    run = folder / "lightning_logs/trial-0-0"
    run.mkdir(parents=True)
    with lock_of_one(run.with_name(".trial-0-0.lock")):
        assert "trial-0: failed: under way in another process" in sweep(*MAML, "--trials=1", code=2)
    assert calls(folder) == []


# ------------------------------------------------------------------ refused


def test_another_setting_is_refused(sweep: Sweep, folder: Path) -> None:
    sweep(*MAML, "--trials=1")
    began = calls(folder)
    for args, message in (
        (
            (*MAML[:-1], "0.01:1:log"),
            "--model.inner_lr 0.001:1:log, not with --model.inner_lr 0.01:1:log",
        ),
        ((*MAML, "--seed=1"), "begun with --seed 0, not with --seed 1"),
        ((*MAML, "--trainer.max_epochs=2"), "begun without --trainer.max_epochs, not with"),
        ((*MAML[:-2], "--model.inner_steps=1:2"), "not without --model.inner_lr"),
    ):
        (line,) = sweep(*args, "--trials=1", code=2).splitlines()
        assert message in line
        assert "set --folder to another folder" in line
    assert calls(folder) == began
    (folder / "search.json").write_text("[]")
    assert "search.json is no record of a search" in sweep(*MAML, code=2)


def test_a_file_that_is_no_study(sweep: Sweep, folder: Path) -> None:
    (folder / "search.db").write_text("something else")
    assert "search.db is no study of a search (" in sweep(*MAML, code=2)


def test_the_file_is_closed_by_us(
    sweep: Sweep, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connections = list[sqlite3.Connection]()

    def connect(*args: Any, connect: Any = sqlite3.connect) -> sqlite3.Connection:
        connections.append(connect(*args))
        return connections[-1]

    monkeypatch.setattr(sqlite3, "connect", connect)
    sweep(*MAML, "--trials=1")
    (folder / "search.db").write_text("something else")
    sweep(*MAML, "--trials=2", code=2)
    assert len(connections) >= 2
    for each in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            each.execute("SELECT 1")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--search optuna --model MAML --data Glyphs", "has no range to search; give one"),
        ("--search optuma --model MAML --data Glyphs", "--search is 'optuma'; did you mean"),
        ("--search optuna --data Glyphs --model.inner_lr 0.1:1", "--model is missing"),
        ("--model.inner_lr a:b", "model.inner_lr is 'a:b', which is no range of numbers"),
        ("--model.inner_lr :", "is no range of numbers"),
        ("--model.inner_lr 0.1:1:lin", "is no range of numbers"),
        ("--model.inner_lr nan:1", "is no range of numbers"),
        ("--model.inner_lr 1:0.1", "the first number must be less than the second"),
        ("--model.inner_lr 0:1:log", "on a logarithmic scale both must be above 0"),
        ("--model.inner_lr 0:1:2", "the step must be above 0 and fit in between"),
        ("--model.inner_lr 0:1:-1", "the step must be above 0 and fit in between"),
        ("--model.inner_lr 0.1:1 0.5", "has the range 0.1:1 beside other values"),
        ("--model.inner_lr a|a", "give words that differ"),
        ("--model.inner_lr 0.1:1 --seed_everything 0:5", "--seed_everything is not searched over"),
        ("--model.inner_lrr 0.1:1", "did you mean 'inner_lr'?"),
        ("--model.inner_lr 0.1:1 --trials 0", "trials is 0; it must be at least 1"),
        ("--model.inner_lr 0.1:1 --seed -1", "seed is -1; it must be at least 0"),
        ("--model.inner_lr 0.1:1 --pruner mediam", "--pruner is 'mediam'; did you mean 'median'?"),
        ("--model.inner_lr 0.1:1 --dry_run", "--dry_run knows no trials"),
    ],
)
def test_refused_before_anything_starts(
    args: str, message: str, sweep: Sweep, folder: Path
) -> None:
    words = args.split()
    if "--search" not in words:
        words = ["--search", "optuna", "--model", "MAML", "--data", "Glyphs", *words]
    (line,) = sweep(*words, code=2).splitlines()
    assert line.startswith("fewshot: error: ")
    assert message in line
    assert [*folder.iterdir()] == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--model.inner_lr 0.1:1", "--model.inner_lr is 0.1:1, which is a range; set --search"),
        ("--model.inner_lr 0.1 0.2 --trials 3", "--trials is for --search optuna"),
        ("--model.inner_lr 0.1 0.2 --pruner none", "--pruner is for --search optuna"),
    ],
)
def test_what_is_for_a_search_alone(args: str, message: str, sweep: Sweep) -> None:
    (line,) = sweep("--model", "MAML", "--data", "Glyphs", *args.split(), code=2).splitlines()
    assert message in line


def test_without_optuna(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> None:
        raise ModuleNotFoundError(name=package)

    monkeypatch.setattr(importlib, "import_module", missing)
    (line,) = sweep(*MAML, code=2).splitlines()
    assert line.endswith("optuna is not installed; pip install 'fewshot-lightning[search]'")


SINUSOID = ("--model=MAML", "--model.backbone=MLP", "--data=SinusoidDataModule")


HEADS = ("--model=SimpleShot", "--model.backbone=Pixels", "--data=GlyphsDataModule")
EVERY_THIRD = ("--trainer.check_val_every_n_epoch=3", "--trainer.max_epochs=2")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((*SINUSOID, "--trainer.limit_val_batches=0"), "trainer.limit_val_batches is 0"),
        ((*SINUSOID, "--trainer.fast_dev_run=true"), "trainer.fast_dev_run is set"),
        ((*SINUSOID, *EVERY_THIRD), "trainer.check_val_every_n_epoch is 3 of 2 epochs"),
        (HEADS, "SimpleShot has nothing to train here"),
    ],
)
def test_a_metric_that_no_validation_gives(args: tuple[str, ...], message: str) -> None:
    with pytest.raises(FewshotError, match=message) as error:
        judge(args)
    assert str(error.value).startswith("no validation gives ")


def test_the_task_says_what_is_better(tmp_path: Path) -> None:
    assert judge(SINUSOID) == Judge("mse", "min", "")
    assert not (tmp_path / "lightning_logs").exists()


# ------------------------------------------------------------------ ranges


@pytest.mark.parametrize(
    ("text", "ends", "log", "step"),
    [
        ("1:5", ("1", "5"), False, None),
        ("1:5.0", ("1.0", "5.0"), False, None),
        ("1e-3:1:log", ("0.001", "1.0"), True, None),
        ("1:64:log", ("1", "64"), True, None),
        ("16:70:16", ("16", "64"), False, 16),
        ("0:1:0.25", ("0.0", "1.0"), False, 0.25),
        ("-2:-1", ("-2", "-1"), False, None),
        ("a|b|c", ("a", "c"), False, None),
    ],
)
def test_ranges(text: str, ends: tuple[str, str], log: bool, step: float | None) -> None:
    found = read_range("x", text)
    assert (found.ends, found.log, found.step) == (ends, log, step)


# ------------------------------------------------------------------ a real one


class Here:
    """A process of a run that is none: the run goes at once, in this one."""

    pid = 0

    def __init__(self, words: Sequence[str], stdout: Any, **kwargs: Any) -> None:
        with redirect_stdout(stdout), redirect_stderr(stdout):
            self.returncode = main(words[len(sweep_jobs.PROGRAM) :])

    def poll(self) -> int:
        return self.returncode

    def terminate(self) -> None:
        pass


@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_real_search(
    processes: bool,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not processes:
        monkeypatch.setattr(subprocess, "Popen", Here)
        monkeypatch.setattr(sweep_tuning, "judges", lambda runs: [*map(judge, runs)])
    args = (
        *("sweep", *SINUSOID, "--search", "optuna", "--trials", "2", "--jobs", "2"),
        *("--set", "model.inner_lr", "0.001:0.1:log", "model.inner_steps", "1:2"),
        *("--data.meta_batch_size=4", "--trainer.max_epochs=2", *FEW, *QUIET),
        f"--folder={tmp_path}",
    )
    assert main(args) == 0, capfd.readouterr()
    out = capfd.readouterr().out
    best, other = rows(tmp_path)
    assert float(best["mse"]) <= float(other["mse"])
    assert best["validations"] == "2"
    run = tmp_path / f"lightning_logs/{best['trial']}-0"
    values = [value for _, value in json.loads((run / "validations.json").read_text())]
    assert min(values) == pytest.approx(float(best["mse"]))
    assert (run / "results.json").exists()
    assert not (tmp_path / f"lightning_logs/{other['trial']}-0/results.json").exists()
    assert "mse on Sinusoid" in out


def test_a_learner_whose_validation_lacks_its_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Regression, "monitor", ("nosuch", "min"))
    args = (*SINUSOID, "--data.meta_batch_size=4", "--trainer.max_epochs=1", *FEW, *QUIET)
    no_best = ("--trainer.enable_checkpointing=false", f"--trainer.default_root_dir={tmp_path}")
    assert main(["fit", *args, *sweep_search.TRIES, *no_best]) == 2
    assert "judged by val/nosuch, which no validation gives" in capfd.readouterr().err
