"""A run has a folder of its own, which holds all of it, and is found again by what is asked."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import yaml
from commands import FEW, QUIET, SINUSOID, fewshot, fit, results, runs
from forks import python
from lightning.pytorch.strategies import SingleDeviceStrategy
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fewshot.callbacks.places import Names
from fewshot.callbacks.run_folder import RunFolder
from fewshot.cli.main import main
from fewshot.errors import FewshotError
from fewshot.files.claims import claimed_folder, lock_of_one

pytestmark = pytest.mark.usefixtures("undrawn")

HERE = Path(__file__).resolve().parent
CURVE = "--model.eval_curve=all"  # which has a picture of its own
SHORT = (*SINUSOID, *FEW, *QUIET, "--trainer.max_epochs=1", CURVE)
EVERYTHING = {"config.yaml", "results.json", "episodes.csv", "episode.png", "adaptation.png"}
EVERYTHING |= {"histogram.png", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
LOGGERS = {
    "tensorboard": ("--trainer.logger=TensorBoardLogger", "--trainer.logger.save_dir=ROOT/tb"),
    "tensorboard's name": (
        "--trainer.logger=TensorBoardLogger",
        "--trainer.logger.save_dir=ROOT/tb",
        "--trainer.logger.name=mine",
    ),
    "csv": ("--trainer.logger=CSVLogger", "--trainer.logger.save_dir=ROOT/csv"),
    "csv's version": (
        "--trainer.logger=CSVLogger",
        "--trainer.logger.save_dir=ROOT/csv",
        "--trainer.logger.version=v",
    ),
    "service": ("--trainer.logger=fake_loggers.Service", "--trainer.logger.save_dir=ROOT/s"),
    "plain": ("--trainer.logger=fake_loggers.Plain", "--trainer.logger.save_dir=ROOT/s"),
    "several": (
        "--trainer.logger+=fake_loggers.Service",
        "--trainer.logger.save_dir=ROOT/s",
        "--trainer.logger+=CSVLogger",
        "--trainer.logger.save_dir=ROOT/csv",
    ),
    "none": ("--trainer.logger=false",),
    "default": (),
    "name": ("--run_name=mine",),
    "lightning's names": ("--run_name=version",),
}


def options(kind: str, root: Path) -> list[str]:
    return [option.replace("ROOT", str(root)) for option in LOGGERS[kind]]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def folders(root: Path) -> list[Path]:
    """The folders of all runs below a root, by the records of what they were started with."""
    return sorted(path.parent for path in root.rglob("config.yaml"))


def step(run: Path) -> int:
    content = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    assert isinstance(content["global_step"], int)
    return content["global_step"]


def refused(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    capsys.readouterr()
    assert main(list(args)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    return line.removeprefix("fewshot: error: ")


# ---------------------------------------------------------------------- whatever the logger


@pytest.mark.parametrize("kind", LOGGERS)
def test_all_of_a_run_lies_beside_its_checkpoints_and_is_found_there(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    root = f"--trainer.default_root_dir={tmp_path}"
    args = (*SHORT, root, *options(kind, tmp_path))
    assert main(["fit", *args]) == 0
    out = capsys.readouterr().out
    (first,) = folders(tmp_path)
    assert files(first) >= EVERYTHING
    assert f"run:         {first}" in out
    assert ("tensorboard --logdir" in out) == any(tmp_path.rglob("events.out.tfevents.*"))
    before = {name: (first / name).read_bytes() for name in files(first) if "tfevents" not in name}

    assert main(["fit", *args]) == 0
    (second,) = set(folders(tmp_path)) - {first}
    assert files(second) >= EVERYTHING
    assert second.parent == first.parent
    assert before.items() <= {name: (first / name).read_bytes() for name in files(first)}.items()

    assert main(["fit", *args, "--trainer.max_epochs=2", "--ckpt_path=last"]) == 0
    assert (step(first), step(second)) == (2, 4), "the newest goes on, in its folder"
    assert set(folders(tmp_path)) == {first, second}
    for command in ("test", "predict"):
        assert main([command, *args, "--ckpt_path=best"]) == 0
    written = set(folders(tmp_path)) - {first, second}
    assert {name for run in written for name in files(run)} >= {"results.json", "predictions.csv"}
    assert not any(elsewhere.iterdir())


def test_each_start_leaves_its_own_record(tmp_path: Path) -> None:
    run = fit(tmp_path, *SINUSOID)
    first = (run / "config.yaml").read_bytes()
    for number in (1, 2):
        epochs = f"--trainer.max_epochs={number + 1}"
        fewshot("fit", tmp_path, *SINUSOID, "--ckpt_path=last", epochs)
        held = yaml.safe_load((run / f"config-{number}.yaml").read_text())
        assert held["trainer"]["max_epochs"] == number + 1
    assert (run / "config.yaml").read_bytes() == first
    assert runs(tmp_path) == {run}


def test_pictures_and_tables_go_to_every_logger_that_takes_them(tmp_path: Path) -> None:
    both = (
        "--trainer.logger+=fake_loggers.Service",
        f"--trainer.logger.save_dir={tmp_path}/s",
        "--trainer.logger+=fake_loggers.Plain",
        f"--trainer.logger.save_dir={tmp_path}/p",
        "--trainer.logger+=TensorBoardLogger",
        f"--trainer.logger.save_dir={tmp_path}/tb",
    )
    root = f"--trainer.default_root_dir={tmp_path}"
    assert main(["fit", *SHORT, *both, root]) == 0
    assert main(["predict", *SHORT, *both, root]) == 0
    pictures = {"val/episode", "val/adaptation", "test/episode", "test/adaptation"}
    pictures |= {"test/histogram"}
    noted = [line.split() for line in (tmp_path / "s/project.log").read_text().splitlines()]
    assert {line[1] for line in noted if line[0] == "image"} == pictures
    assert {(line[1], line[2]) for line in noted if line[0] == "table"} >= {
        ("test/episodes", "3"),
        ("predict/predictions", "300"),
    }
    assert "test/results" in {line[1] for line in noted if line[0] == "table"}
    plain = [line.split() for line in (tmp_path / "p/project.log").read_text().splitlines()]
    assert {line[0] for line in plain} == {"metrics"}
    events = {tag for path in tmp_path.rglob("events.*") for tag in images(path)}
    assert events == pictures


def images(path: Path) -> list[str]:
    events = EventAccumulator(str(path))
    events.Reload()
    found: list[str] = events.Tags()["images"]
    return found


def test_a_csv_loggers_rows_are_kept_when_the_run_goes_on(tmp_path: Path) -> None:
    args = (*SHORT, *options("csv", tmp_path), f"--trainer.default_root_dir={tmp_path}")
    assert main(["fit", *args]) == 0
    (run,) = folders(tmp_path)
    rows = (run / "metrics.csv").read_bytes()
    assert main(["fit", *args, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    assert (run / "metrics-1.csv").read_bytes() == rows
    assert (run / "metrics.csv").read_bytes() != rows


# ---------------------------------------------------------------------- names


def test_a_folder_is_called_by_what_the_run_is(tmp_path: Path) -> None:
    glyphs = ("--model=PrototypicalNetwork", "--model.backbone=Conv4", "--data=GlyphsDataModule")
    narrow = ("--model.backbone.width=4", "--data.queries=2", "--data.meta_batch_size=4")
    assert (
        fewshot("test", tmp_path, *glyphs, *narrow).name == "prototypicalnetwork-glyphs-5way1shot-0"
    )
    run = fewshot("test", tmp_path, *glyphs, *narrow, "--data.way=3", "--data.shot=2")
    assert run.name == "prototypicalnetwork-glyphs-3way2shot-0"
    assert fewshot("test", tmp_path, *SINUSOID).name == "maml-sinusoid-10shot-0"
    assert fewshot("test", tmp_path, *SINUSOID).name == "maml-sinusoid-10shot-1"
    assert fewshot("test", tmp_path, *SINUSOID, "--run_name=a.b").name == "a.b-0"
    assert fewshot("test", tmp_path, *SINUSOID, "--run_name=version").name == "version_0"
    versioned = ("--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={tmp_path}")
    names = [
        fewshot("test", tmp_path, *SINUSOID, *versioned, "--trainer.logger.version=v").name
        for _ in range(2)
    ]
    assert names == ["v", "v-1"], "a folder that exists is another run's"


def test_names_that_are_no_folders_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    line = refused(capsys, "fit", *SHORT, root, "--run_name=../x")
    assert line.startswith("run_name is '../x'; give the name of a folder")
    given = ("--trainer.logger=CSVLogger", f"--trainer.logger.save_dir={tmp_path}")
    version = "--trainer.logger.version=3"
    line = refused(capsys, "fit", *SHORT, root, *given, version, "--run_name=x")
    assert line == "run_name is 'x' and the logger's version 'version_3'; leave one out"
    (tmp_path / "lightning_logs").touch()
    line = refused(capsys, "fit", *SHORT, root)
    assert line.startswith(f"cannot make the run's folder {tmp_path}/lightning_logs/maml-sinusoid")


def test_numbers_go_up() -> None:
    names = Names("a")
    assert next(names.after(["a-0", "a-11", "a-x", "b-20", "a"])) == "a-12"
    assert [names.number(name) for name in ("a-3", "a", "a-", "ab-3")] == [3, None, None, None]
    bare = Names("a", bare=True)
    assert next(bare.after([])) == "a"
    assert next(bare.after(["a"])) == "a-1"


def test_a_folder_must_be_new_beside_every_logger(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (two / "a-0").mkdir(parents=True)
    assert claimed_folder((one, two), Names("a").after([])) == "a-1"
    assert [path.name for path in one.iterdir()] == ["a-1"]


# ---------------------------------------------------------------------- which run


def test_last_where_there_is_none_is_an_error_that_names_what_there_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ("fit", *SHORT, f"--trainer.default_root_dir={tmp_path}", "--ckpt_path=last")
    line = refused(capsys, *args)
    assert line == (
        f"ckpt_path is 'last', but no run below {tmp_path}/lightning_logs has a last.ckpt; give its"
        " path"
    )
    run = fit(tmp_path, *SINUSOID, "--test_after_fit=false")
    line = refused(capsys, *args, "--data.shot=5")
    assert line == (
        f"ckpt_path is 'last', but no run below {tmp_path}/lightning_logs by the name"
        f" maml-sinusoid-5shot has a last.ckpt; give one of them: --ckpt_path {run}"
    )
    assert runs(tmp_path) == {run}, "what is refused leaves no folder"


def test_another_loggers_newer_run_is_another_commands(tmp_path: Path) -> None:
    mine = fit(tmp_path, *SINUSOID, "--test_after_fit=false")
    root = f"--trainer.default_root_dir={tmp_path}"
    for kind in ("csv", "service"):
        assert main(["fit", *SHORT, root, *options(kind, tmp_path), "--test_after_fit=false"]) == 0
    others = set(folders(tmp_path)) - {mine}
    assert main(["fit", *SHORT, root, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    assert [step(mine), *map(step, others)] == [4, 2, 2]


def test_written_at_the_same_moment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pair = sorted(fit(tmp_path, *SINUSOID, "--test_after_fit=false") for _ in range(2))
    for run in pair:
        os.utime(run / "checkpoints/last.ckpt", (10, 10))
    args = ("fit", *SHORT, f"--trainer.default_root_dir={tmp_path}")
    line = refused(capsys, *args, "--ckpt_path=last")
    assert line == (
        "ckpt_path is 'last', but several were written at the same moment; give one of them:"
        f" --ckpt_path {pair[0]}, {pair[1]}"
    )
    assert main([*args, f"--ckpt_path={pair[0]}", "--trainer.max_epochs=2"]) == 0
    assert [step(run) for run in pair] == [4, 2], "the folder of a run names it"


def test_the_folder_of_a_run_names_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path / "one", *SINUSOID, "--test_after_fit=false", "--run_name=mine")
    (run / "checkpoints/best.ckpt").unlink()
    root = f"--trainer.default_root_dir={tmp_path / 'two'}"
    args = (*SHORT, root, f"--ckpt_path={run}", "--trainer.max_epochs=2")
    line = refused(capsys, "test", *args)
    assert line == f"the run {run} has no best.ckpt; give another, or a file"
    # a logger of this command would write into a folder of that name that is another run's
    line = refused(capsys, "fit", *args)
    assert line == (
        f"the run {run} does not lie in {tmp_path}/two/lightning_logs, where this command's runs"
        " do; set trainer.default_root_dir or the logger as they were"
    )
    assert main(["fit", *args, f"--trainer.default_root_dir={tmp_path / 'one'}"]) == 0
    assert step(run) == 4
    assert not (tmp_path / "two").exists()


def test_a_callbacks_own_folder_counts(tmp_path: Path) -> None:
    own = (
        "--trainer.callbacks=ModelCheckpoint",
        f"--trainer.callbacks.dirpath={tmp_path}/own",
        "--trainer.callbacks.save_last=true",
        "--test_after_fit=false",
    )
    first = fit(tmp_path, *SINUSOID, *own)
    second = fit(tmp_path, *SINUSOID, *own)
    os.utime(tmp_path / "own/last-v1.ckpt")
    os.utime(tmp_path / "own/last.ckpt", (10, 10))
    args = ("fit", *SHORT, *own, f"--trainer.default_root_dir={tmp_path}")
    assert main([*args, "--ckpt_path=last", "--trainer.max_epochs=2"]) == 0
    assert runs(tmp_path) == {first, second}
    starts = [sorted(path.name for path in run.glob("config*")) for run in (first, second)]
    assert starts == [["config.yaml"], ["config-1.yaml", "config.yaml"]], "it says whose it is"


# ---------------------------------------------------------------------- at the same time


def test_a_run_that_goes_on_elsewhere_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    older, run = (fit(tmp_path, *SINUSOID, "--test_after_fit=false") for _ in range(2))
    args = ("fit", *SHORT, f"--trainer.default_root_dir={tmp_path}", "--trainer.max_epochs=2")
    lock = run.with_name(f".{run.name}.lock")
    code = f"""
import os, time
from pathlib import Path
from fewshot.files.claims import lock_of_one
with lock_of_one(Path({str(lock)!r})) as mine:
    worker = os.fork()
    if worker:
        print(mine, worker, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        mine, worker = other.stdout.readline().split()
        assert mine == "True"
        for asked in ("last", str(run)):
            line = refused(capsys, *args, f"--ckpt_path={asked}")
            assert line == (
                f"the run {run} is under way in another process; wait until it has ended, or go on"
                f" with another: --ckpt_path {older}"
            )
        assert step(run) == 2
        other.kill()
    try:
        assert lock.exists()
        assert main([*args, "--ckpt_path=last"]) == 0, "what outlives a killed run keeps no lock"
    finally:
        os.kill(int(worker), signal.SIGKILL)
    assert step(run) == 4
    assert not lock.exists()


def test_a_lock_is_one_blocks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with lock_of_one(path) as mine, lock_of_one(path) as another:
        assert (mine, another) == (True, False)
        assert path.exists()
    assert not path.exists()
    with lock_of_one(path) as mine:
        assert mine


def test_a_claim_that_fails_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FewshotError, match=r"cannot make the run's folder .*file/a-0"):
        claimed_folder((tmp_path / "file",), Names("a").after([]))


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Start:
    path = os.pathsep.join([str(HERE.parent), str(HERE)])

    def run(*args: str, **environment: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [python(), *args],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return run


def test_threads_and_processes_claim_different_folders(start: Start, tmp_path: Path) -> None:
    code = """
import sys, threading
from itertools import count
from pathlib import Path
from fewshot.files.claims import claimed_folder
def claim():
    print(claimed_folder((Path(sys.argv[1]),), (f"run-{n}" for n in count())) + "\\n", end="")
threads = [threading.Thread(target=claim) for _ in range(10)]
[thread.start() for thread in threads]
"""
    processes = [start("-c", code, str(tmp_path)) for _ in range(3)]
    names = [line for process in processes for line in process.communicate()[0].splitlines()]
    assert sorted(names) == sorted(f"run-{number}" for number in range(30))


def test_a_rank_that_lightning_starts_begins_with_what_the_first_has_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, newer = (fit(tmp_path, *SINUSOID, "--test_after_fit=false") for _ in range(2))
    checkpoint = found / "checkpoints/last.ckpt"
    monkeypatch.setattr("fewshot.cli.lightning.is_first_rank", lambda: False)
    monkeypatch.setenv("FEWSHOT_BEGINS_WITH", str(checkpoint))
    begun: list[str] = []
    monkeypatch.setattr(
        "fewshot.cli.lightning.check_learner",
        lambda content, name: begun.append(content["callbacks"]),
    )
    held = torch.load(checkpoint, weights_only=True)["callbacks"]
    assert held != torch.load(newer / "checkpoints/last.ckpt", weights_only=True)["callbacks"]
    fit(tmp_path, *SINUSOID, "--ckpt_path=last", "--trainer.max_epochs=2")
    assert begun == [held]
    assert os.environ["FEWSHOT_BEGINS_WITH"] == str(checkpoint)


def test_ranks_that_begin_with_different_checkpoints_are_refused(tmp_path: Path) -> None:
    class TwoRanks(SingleDeviceStrategy):
        """As the second rank sees it."""

        def broadcast(self, obj: Any, src: int = 0) -> Any:
            return tmp_path, "one.ckpt"

    trainer = L.Trainer(strategy=TwoRanks("cpu"), logger=False, enable_checkpointing=False)
    folder = RunFolder()
    folder.checkpoint = "other.ckpt"
    with pytest.raises(FewshotError, match=r"begins with other\.ckpt, the first with one\.ckpt"):
        folder.setup(trainer, L.LightningModule(), "fit")


def test_a_dry_run_leaves_no_folder_but_a_tests_results_have_one(tmp_path: Path) -> None:
    args = (*SHORT, f"--trainer.default_root_dir={tmp_path}", "--trainer.fast_dev_run=true")
    for command in ("fit", "validate"):
        assert main([command, *args]) == 0
        assert not any(tmp_path.iterdir())
    assert main(["test", *args]) == 0
    (run,) = runs(tmp_path)
    assert {"results.json", "episodes.csv"} <= files(run)


def test_ranks_of_torchrun_share_one_folder(start: Start, tmp_path: Path) -> None:
    two = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.accelerator=cpu"]
    logger = options("service", tmp_path)
    process = start(
        *("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "fewshot"),
        *("fit", *SHORT, *two, *logger, f"--trainer.default_root_dir={tmp_path}"),
    )
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out[-3000:]
    (run,) = folders(tmp_path)
    assert (step(run), results(run)["episodes"]) == (2, 3)
    assert [path.name for path in run.parent.iterdir()] == [run.name]
