"""`fewshot sweep`: every combination once, what was cut off goes on, failures told, then compared."""

import csv
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import FEW, QUIET
from forks import python
from sweeps import PROGRAM, Sweep, calls, sweep_in

from fewshot.cli import sweep_jobs
from fewshot.cli.main import main
from fewshot.cli.sweep_stop import Stop
from fewshot.files.claims import lock_of_one

HERE = Path(__file__).resolve().parent
TWO = ("--model", "MAML", "protonet", "--data", "Glyphs")
FOUR = (*TWO, "--seed_everything", "0", "1")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the sweeps, whose runs are not real ones."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(sweep_jobs, "PROGRAM", PROGRAM)
    monkeypatch.setattr(sweep_jobs, "POLL", 0.005)
    return tmp_path / "sweep"


@pytest.fixture
def sweep(folder: Path, capfd: pytest.CaptureFixture[str]) -> Sweep:
    return sweep_in(folder, capfd)


def names(folder: Path) -> list[str]:
    return [name for name, *_ in calls(folder)]


ALL = [
    f"{model}-seed_everything={seed}"
    for model in ("MAML", "PrototypicalNetwork")
    for seed in (0, 1)
]


# ------------------------------------------------------------------ to the end


def test_every_combination_is_run_and_compared(sweep: Sweep, folder: Path) -> None:
    out = sweep(*FOUR)
    assert names(folder) == ALL
    assert "[2/4] MAML-seed_everything=1: begins" in out
    assert "[2/4] MAML-seed_everything=1: accuracy 61.00 ± 1.00 %, 0 s" in out
    with (folder / "comparison.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert [row["seeds"] for row in rows] == ["0 1", "0 1"]
    assert [float(row["accuracy"]) for row in rows] == pytest.approx([0.605, 0.505])
    assert "accuracy on Glyphs, 5-way 1-shot" in out
    assert "| 60.50 " in (folder / "comparison.md").read_text()


def test_what_is_done_is_not_done_again(sweep: Sweep, folder: Path) -> None:
    sweep(*TWO, "--seed_everything", "0")
    out = sweep(*TWO, "--seed_everything", "0")
    assert "2 runs in" in out
    assert "2 of them done before" in out
    assert "[1/2] MAML: accuracy 60.00 ± 1.00 %, done before" in out
    assert names(folder) == ["MAML", "PrototypicalNetwork"]
    # more values: the old runs are the same ones
    out = sweep(*FOUR)
    assert names(folder)[2:] == ["MAML-seed_everything=1", "PrototypicalNetwork-seed_everything=1"]
    assert "60.50" in out


def test_other_options_are_other_runs(sweep: Sweep, folder: Path, tmp_path: Path) -> None:
    config = tmp_path / "own.yaml"
    config.write_text("data: {class_path: GlyphsDataModule}")
    args = ("--config", str(config), "--model", "MAML", "ANIL")
    sweep(*args)
    sweep(*args, "--trainer.max_epochs=2")
    config.write_text("# the same\ndata: {class_path:  GlyphsDataModule}")
    sweep(*args)
    assert names(folder) == ["MAML", "ANIL", "MAML+2", "ANIL+2"]
    config.write_text("data: {class_path: GlyphsDataModule, init_args: {way: 3}}")
    sweep(*args)
    assert names(folder)[4:] == ["MAML+3", "ANIL+3"]


def test_set_and_config_and_class_options_name_their_runs(sweep: Sweep, folder: Path) -> None:
    out = sweep(
        *("-c", "glyphs/maml_5way1shot", "glyphs/baseline_5way1shot", "--data", "Glyphs"),
        *("--set", "model.inner_lr", "-0.1", "1e-2", "--model", "MAML"),
        *("--set=model.backbone.width=8", "16", "--data.seed=3", "4", "--dry_run"),
    )
    lines = out.splitlines()
    assert len(lines) == 16
    assert "--model.inner_lr=-0.1 " in lines[0]
    # the class is named before its arguments, which are of that of the config otherwise
    assert lines[0].index("--model=MAML") < lines[0].index("--model.inner_lr")
    assert "--model.backbone.width=8 " in lines[0]
    assert "--run_name=maml_5way1shot-inner_lr=-0.1-width=8-seed=3" in lines[0]
    assert "--run_name=baseline_5way1shot-inner_lr=1e-2-width=16-seed=4" in lines[-1]
    assert "glyphs/baseline_5way1shot.yaml" in lines[-1]
    assert not folder.exists()


def test_dry_run_says_what_is_done(sweep: Sweep, folder: Path) -> None:
    sweep(*TWO)
    lines = sweep(*FOUR, "--dry_run").splitlines()
    assert len(lines) == 4  # no seed is not seed 0
    lines = sweep(*TWO, "--dry_run").splitlines()
    assert lines[0] == f"# done: {folder}/lightning_logs/MAML-0"


def test_jobs_run_at_the_same_time_and_share_the_cores(
    sweep: Sweep, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(sweep_jobs, "cores", lambda: 6)
    folder.mkdir()
    (folder / "meets").write_text("")
    sweep(*TWO, "--data.seed", "0", "--jobs", "2")
    assert [threads for _, _, threads, _ in calls(folder)] == ["3", "3"]


# ------------------------------------------------------------------ faults


def test_a_failure_is_told_and_the_rest_goes_on(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    (folder / "fails").write_text("MAML-seed_everything=0")
    out = sweep(*FOUR, code=2)
    assert "[1/4] MAML-seed_everything=0: failed after 0 s: lr is x; give a number (" in out
    assert "fewshot: error: 1 of 4 runs are not done: MAML-seed_everything=0; the same" in out
    assert "61.00" in out
    assert names(folder) == ALL
    (folder / "fails").unlink()
    sweep(*FOUR)
    assert names(folder)[4:] == ["MAML-seed_everything=0"]


def test_failures_of_runs_and_of_their_comparison_are_told(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    (folder / "fails").write_text("Network")
    (folder / "unlike").write_text("MAML-seed_everything=1")
    out = sweep(*FOUR, code=2)
    assert f"2 of 4 runs are not done: {', '.join(ALL[2:])}; the same command" in out
    assert "which they do not have in common" in out


def test_a_run_that_is_killed(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    (folder / "killed").write_text("MAML")
    assert "MAML: failed after 0 s: killed by signal 9 (" in sweep(*TWO, code=2)


def test_only_the_last_process_of_a_run_says_why_it_failed(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    (folder / "fails").write_text("MAML")
    sweep(*TWO, code=2)
    (folder / "fails").rename(folder / "killed")
    out = sweep(*TWO, code=2)
    assert "killed by signal 9" in out
    assert "lr is x" not in out


def test_what_was_cut_off_goes_on_or_begins_anew(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    (folder / "stops").write_text("M")  # results of a test that was stopped
    sweep(*TWO, code=2)
    (folder / "stops").unlink()
    run = folder / "lightning_logs/MAML-0"
    (run / "checkpoints/last.ckpt").touch()
    out = sweep(*TWO)
    assert "MAML: goes on" in out
    assert [call[:2] for call in calls(folder)[2:]] == [["MAML", str(run)]]
    (folder / "lightning_logs/PrototypicalNetwork-0/results.json").unlink()
    assert "PrototypicalNetwork: begins" in sweep(*TWO)
    assert (folder / "lightning_logs/PrototypicalNetwork-1/results.json").exists()


def when(place: Path, number: int, times: int = 1) -> threading.Thread:
    """Send signals to this process as soon as a file is there."""

    def send() -> None:
        until = time.monotonic() + 20
        while not place.exists() and time.monotonic() < until:
            time.sleep(0.01)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.1)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_ends_the_runs_with_their_checkpoints(
    number: int, code: int, sweep: Sweep, folder: Path
) -> None:
    folder.mkdir()
    (folder / "hangs").write_text("MAML")
    if number == signal.SIGHUP:  # which is ignored where the tests run under nohup
        signal.signal(number, signal.SIG_DFL)
    before = signal.getsignal(number)
    thread = when(folder / "MAML.ready", number)
    out = sweep(*TWO, code=code)
    thread.join()
    assert "stopping 1 under way" in out
    assert names(folder) == ["MAML"]
    assert (folder / "lightning_logs/MAML-0/checkpoints/last.ckpt").exists()
    assert is_gone(folder)
    assert signal.getsignal(number) is before
    (folder / "hangs").unlink()
    assert "MAML: goes on" in sweep(*TWO)


def is_gone(folder: Path) -> bool:
    try:
        os.kill(int((folder / "MAML.pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


def test_a_signal_that_was_ignored_before_is_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.noted == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_second_signal_ends_a_run_that_does_not_hear(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    (folder / "deaf").write_text("MAML")
    thread = when(folder / "MAML.ready", signal.SIGINT, times=2)
    began = time.monotonic()
    sweep(*TWO, code=130)
    thread.join()
    assert time.monotonic() - began < sweep_jobs.GRACE / 2
    assert is_gone(folder)


def test_a_run_that_does_not_hear_is_given_its_time(
    sweep: Sweep, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_jobs, "GRACE", 0.2)
    folder.mkdir()
    (folder / "deaf").write_text("MAML")
    thread = when(folder / "MAML.ready", signal.SIGTERM)
    sweep(*TWO, code=143)
    thread.join()
    assert is_gone(folder)


def test_who_reads_the_lines_may_be_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch, sweep: Sweep
) -> None:
    def say(line: str) -> None:
        if "[1/2]" not in line:
            until = time.monotonic() + 20
            while not (folder / "MAML.ready").exists() and time.monotonic() < until:
                time.sleep(0.01)
            raise BrokenPipeError

    monkeypatch.setattr(sweep_jobs, "say", say)
    folder.mkdir()
    (folder / "hangs").write_text("MAML")
    sweep(*TWO, "--jobs=2", code=2)
    assert is_gone(folder)


def test_what_another_process_does(sweep: Sweep, folder: Path) -> None:
    run = folder / "lightning_logs/MAML-0"
    run.mkdir(parents=True)
    with lock_of_one(folder / ".sweep.lock"):
        assert f"another sweep is under way in {folder}; wait" in sweep(*TWO, code=2)
    with lock_of_one(run.with_name(".MAML-0.lock")):
        assert "MAML: under way in another process" in sweep(*TWO, code=2)
    assert names(folder) == ["PrototypicalNetwork"]


def test_a_record_that_is_none(sweep: Sweep, folder: Path) -> None:
    folder.mkdir()
    for text in ("{", "[]", '{"MAML": 1}', '{"MAML": {}}'):
        (folder / "sweep.json").write_text(text)
        assert "sweep.json is no record of a sweep; remove it" in sweep(*TWO, code=2)
    assert names(folder) == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "no option has several values"),
        ("--model MAML --data Glyphs", "no option has several values"),
        ("--model MAML ANIL", "--data is missing; give a config"),
        ("--seed_everything 0 1", "--model and --data are missing; give a config"),
        ("--model", "--model has no value"),
        ("--model --seed_everything 0 1", "--model has no value"),
        ("--set", "--set names no option"),
        ("--set model.inner_lr", "--model.inner_lr has no value"),
        ("--model MAML Prottonet --data Glyphs", "did you mean 'PrototypicalNetwork'?"),
        ("--model MAML zzz Prottonet --data Glyphs", "'zzz' is no known class; choose from"),
        ("--model MAML --data Glyphs Omnigloth", "did you mean 'OmniglotDataModule'?"),
        ("--model MAML maml --data Glyphs", "--model has the value MAML twice"),
        ("--modle MAML ANIL", "unknown option 'modle'; did you mean 'model'?"),
        ("--model MAML ANIL --data Glyphs --job 2", "did you mean 'jobs'?"),
        ("--trainer.max_epohcs 1 2", "did you mean 'trainer.max_epochs'?"),
        ("--model A B --model C", "--model is given 2 times"),
        ("--model MAML --set model.inner_lr 1 2 --model.init_args.inner_lr 3", "is given 2 times"),
        ("--model MAML --data Glyphs --set model.inner_lrr 1 2", "did you mean 'inner_lr'?"),
        (
            "--config glyphs/protonet_5way1shot --set model.distanc cosine euclidean",
            "PrototypicalNetwork has no argument 'distanc'; did you mean 'distance'?",
        ),
        ("--config glyphs/protonet_5way1shot --set data.shto 1 5", "did you mean 'shot'?"),
        (
            "--config glyphs/protonet_5way1shot --set model.backbone.widht 8 16",
            "Conv4 has no argument 'widht'",
        ),
        ("--model MAML ProtoNet --data Glyphs --model.inner_lr 1", "has no argument 'inner_lr'"),
        ("--jobs 0 --model MAML ANIL --data Glyphs", "jobs is 0; it must be at least 1"),
        ("--jobs two --model MAML ANIL", "invalid int value: 'two'"),
        ("--dry_run yes --model MAML ANIL", "'yes' belongs to no option"),
        ("MAML --model ANIL", "'MAML' belongs to no option"),
        ("--config glyphs/nosuch --seed_everything 0 1", "glyphs/nosuch does not exist"),
        ("--run_name a b", "--run_name is not for a sweep"),
        ("--ckpt_path last --model MAML ANIL", "--ckpt_path is not for a sweep"),
        ("--trainer.default_root_dir x --model MAML ANIL", "set --folder in its place"),
        ("--model.help MAML", "ask `fewshot fit --model.help MAML`"),
        ("--model MAML ANIL --data Glyphs --trainer.logger CSVLogger", "puts the runs elsewhere"),
    ],
)
def test_refused_before_anything_starts(
    args: str, message: str, sweep: Sweep, folder: Path
) -> None:
    (line,) = sweep(*args.split(), code=2).splitlines()
    assert line.startswith("fewshot: error: ")
    assert message in line
    assert not folder.exists()


def test_loggers_that_lie_in_the_folder_or_elsewhere(
    sweep: Sweep, folder: Path, tmp_path: Path
) -> None:
    given = ("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", str(folder))
    assert len(sweep(*TWO, *given, "--dry_run").splitlines()) == 2
    config = tmp_path / "own.yaml"
    args = (*TWO, "--config", str(config), "--dry_run")
    for logger in ("CSVLogger", "[{class_path: CSVLogger, init_args: {save_dir: x}}]"):
        for text in (f"trainer: {{logger: {logger}}}", f"fit: {{trainer: {{logger: {logger}}}}}"):
            config.write_text(text)
            assert "trainer.logger puts the runs elsewhere" in sweep(*args, code=2)
    config.write_text(f"trainer: {{logger: {{class_path: C, init_args: {{save_dir: {folder}}}}}}}")
    assert len(sweep(*args).splitlines()) == 2
    config.write_text("trainer: {logger: true}")
    assert len(sweep(*args).splitlines()) == 2


def test_a_folder_that_is_a_file(sweep: Sweep, folder: Path) -> None:
    folder.touch()
    assert "which is a file; name a folder" in sweep(*TWO, code=2)


# ------------------------------------------------------------------ real runs


def test_real_runs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (sys.executable, "-m", "fewshot") == sweep_jobs.PROGRAM
    monkeypatch.setattr(sweep_jobs, "PROGRAM", (python(), "-m", "fewshot"))
    args = (
        *("sweep", "--model", "MAML", "FOMAML", "--model.backbone", "MLP", "--data", "Sinusoid"),
        *("--data.meta_batch_size=4", "--trainer.max_steps=2", "--jobs", "2"),
        *(*FEW, *QUIET, "--folder", str(tmp_path)),
    )
    assert main(args) == 0, capfd.readouterr()
    out = capfd.readouterr().out
    assert "mse on Sinusoid" in out
    assert "model: MAML (1), FOMAML (2)" in out
    for learner in ("MAML", "FOMAML"):
        run = tmp_path / f"lightning_logs/{learner}-0"
        assert json.loads((run / "results.json").read_text())["learner"] == learner
