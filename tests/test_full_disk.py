"""A full disk, whoever meets it first: one line with the path and the remedy, and status 2.

The limit of a file's size stands for it: the system says EFBIG where a disk says ENOSPC.
"""

import errno
import os
import re
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from commands import FEW, QUIET, SINUSOID

from fewshot.cli.main import main
from fewshot.cli.messages import one_line
from fewshot.deployment.export import save_program, to_program
from fewshot.files import atomic_write, written_beside

RUN = (*SINUSOID, *FEW, *QUIET, "--trainer.max_steps=4", "--trainer.log_every_n_steps=1")
HERE = Path(__file__).resolve().parent


@pytest.fixture(autouse=True)
def room_again() -> Iterator[None]:
    """Whatever a test limits, the next may write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("command", "step", "size", "logger", "meets"),
    [
        ("fit", "1", 1500, "TensorBoardLogger", ""),
        ("test", "null", 100, "TensorBoardLogger", ""),
        ("fit", "1", 300, "CSVLogger", ""),
        ("test", "null", 600, "", "/episode.png"),
        ("predict", "null", 100, "", "/predictions.csv"),
    ],
)
def test_what_meets_it_first_is_named(
    command: str,
    step: str,
    size: int,
    logger: str,
    meets: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fills = ("--trainer.callbacks=disturbances.FillsDisk", f"--trainer.callbacks.step={step}")
    logs = (
        (f"--trainer.logger={logger}", f"--trainer.logger.save_dir={tmp_path}")
        if logger
        else ("--trainer.logger=false",)
    )
    root = f"--trainer.default_root_dir={tmp_path}"
    args = (
        *fills,
        f"--trainer.callbacks.size={size}",
        *logs,
        "--trainer.enable_checkpointing=false",
    )
    threads = threading.excepthook
    assert main([command, *RUN, *args, root]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert said.count("fewshot: error: ") == 1
    place = rf"{re.escape(str(tmp_path))}\S*{meets}"
    assert re.search(
        rf"error: cannot write {place} \(File too large\); make room there, or choose", said
    )
    assert threading.excepthook is threads
    assert not list(tmp_path.rglob(".*")), "nothing half-written is left"
    assert not list(tmp_path.rglob("results.json"))


def test_results_of_a_disk_without_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fewshot.callbacks.results.json.dump", full)
    args = ("--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}")
    assert main(["test", *RUN, *args]) == 2
    line = r"/results\.json \(No space left on device\); make room there"
    assert re.search(rf"cannot write {re.escape(str(tmp_path))}\S*{line}", capsys.readouterr().err)


def test_both_ways_to_write_a_file_name_it(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for write in (atomic_write, written_beside):
        with pytest.raises(OSError, match="No space") as caught, write(tmp_path / "a"):
            full()
        assert caught.value.filename == str(tmp_path / "a")
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(FileNotFoundError) as other, write(tmp_path / "a"):
            (tmp_path / "b").read_text()
        assert other.value.filename == str(tmp_path / "b"), "another file keeps its name"


def test_an_export_does_not_end_in_an_abort(tmp_path: Path) -> None:
    """torch's own writer throws where it is destroyed, which ends the process."""
    network, inputs = torch.nn.Linear(64, 64), torch.ones(2, 64)
    program = to_program(network, inputs)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    with pytest.raises(OSError, match="too large") as caught:
        save_program(program, tmp_path / "it.pt2", network, inputs)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f"cannot write {tmp_path / 'it.pt2'} (File too large)" in one_line(caught.value)
    # a view of a BytesIO in the frames of an error: Python 3.12 crashes where the collector takes both
    held = [value for entry in caught.traceback for value in entry.frame.f_locals.values()]
    assert {type(view.obj) for view in held if isinstance(view, memoryview)} == {bytes}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_an_output_that_takes_nothing() -> None:
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "fewshot", "list"],
            env={**os.environ, "PYTHONPATH": str(HERE.parent)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
    assert ran.returncode == 2
    assert ran.stderr.startswith("fewshot: error: cannot write a file or the output (No space")
    assert ran.stderr.count("\n") == 1


def test_other_errors_of_files_have_a_remedy(tmp_path: Path) -> None:
    def said(number: int) -> str:
        return one_line(OSError(number, os.strerror(number), str(tmp_path)))

    assert said(errno.EACCES) == f"{tmp_path}: Permission denied; choose a path that you may use"
    assert said(errno.EISDIR) == f"{tmp_path}: Is a directory; give a file, not a folder"


def test_another_error_of_a_thread_is_shown_as_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(error: Exception) -> None:
        raise error

    def run(error: Exception) -> None:
        thread = threading.Thread(target=work, args=(error,))
        thread.start()
        thread.join()

    shown: list[object] = []
    monkeypatch.setattr("threading.excepthook", lambda args: shown.append(args.exc_value))
    mistake = ValueError("a mistake")
    monkeypatch.setattr("fewshot.cli.main.run", lambda args: run(mistake))
    assert main(["list"]) == 0
    assert shown == [mistake]
    full = OSError(errno.ENOSPC, "No space left on device", "events")
    monkeypatch.setattr("fewshot.cli.main.run", lambda args: run(full))
    assert main(["list"]) == 2
    assert "cannot write events (No space left on device)" in capsys.readouterr().err
    assert shown == [mistake]
