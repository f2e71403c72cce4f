"""Files are written whole, through links and into devices; what killed writers leave is removed."""

import csv
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fewshot.datasets.reading.downloads import cached_arrays
from fewshot.errors import FewshotError
from fewshot.files import atomic_write, leftovers, scratch_folder, written_beside
from fewshot.files.leftovers import remove_leftovers, remove_leftovers_of_runs, scratch_name
from fewshot.files.tables import printable, write_table


def write(path: Path, text: str) -> None:
    with atomic_write(path) as file:
        file.write(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(autouse=True)
def new_start() -> None:
    """Each test is a start of its own: a process looks at a folder once."""
    leftovers._removed.cache_clear()


# --- links and devices ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["atomic_write", "written_beside"])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, how: str) -> None:
    (tmp_path / "there").mkdir()
    target, link, other = tmp_path / "there/file", tmp_path / "link", tmp_path / "other"
    link.symlink_to("there/file")
    other.symlink_to(link)
    for text in ("new", "again"):  # the first time the link leads nowhere yet
        if how == "atomic_write":
            write(other, text)
        else:
            with written_beside(other) as path:
                path.write_text(text)
        assert target.read_text() == text
        assert all(path.is_symlink() for path in (link, other))
    assert names(tmp_path / "there") == ["file"]
    assert names(tmp_path) == ["link", "other", "there"]


def test_devices_and_pipes_are_written_to_and_never_replaced(tmp_path: Path) -> None:
    null = os.stat("/dev/null")
    write(Path("/dev/null"), "nothing")
    assert os.stat("/dev/null").st_ino == null.st_ino
    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    reader.start()
    write(tmp_path / "pipe", "through")
    reader.join(10)
    assert read == ["through"]
    with (
        pytest.raises(FewshotError, match="pipe is a device or a pipe; name a file"),
        written_beside(tmp_path / "pipe"),
    ):
        pytest.fail("it must be refused before")
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_the_programs_own_output_goes_on_where_it_was(tmp_path: Path, name: str) -> None:
    """Redirected to a file, it is one: it must be neither replaced nor begun anew."""
    code = (
        "import sys; from pathlib import Path; from fewshot.files import atomic_write\n"
        f"print('before', flush=True)\nwith atomic_write(Path({name!r})) as f: f.write('rows\\n')\n"
        "print('after')"
    )
    with (tmp_path / "out").open("w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out").read_text() == "before\nrows\nafter\n"


# --- leftovers ------------------------------------------------------------------------


def killed_writer(path: Path) -> None:
    """What a process does that is killed while it writes a file, a folder and a cache."""
    with atomic_write(path / "file") as file, scratch_folder(path) as folder:
        file.write("half")
        (folder / "half").write_text("half")
        cached_arrays(path / "cache.npz", lambda: {"a": np.zeros(3)})
        np.savez = lambda *args, **kwargs: os._exit(9)
        cached_arrays(path / "other.npz", lambda: {"a": np.zeros(3)})


STARTS: dict[str, Callable[[Path], object]] = {
    "a file is written": lambda folder: write(folder / "file", "whole"),
    "a cache is read": lambda folder: cached_arrays(folder / "cache.npz", dict),
    "a folder is used": lambda folder: scratch_folder(folder).__enter__(),
    "a run begins": lambda folder: remove_leftovers_of_runs(folder.parents[1]),
}


@pytest.mark.parametrize("start", STARTS)
def test_what_a_killed_process_leaves_goes_with_the_next_start(tmp_path: Path, start: str) -> None:
    folder = tmp_path / "lightning_logs/version_0"
    folder.mkdir(parents=True)
    process = multiprocessing.get_context("fork").Process(target=killed_writer, args=(folder,))
    process.start()
    process.join()
    assert process.exitcode == 9
    left = {name for name in names(folder) if name.startswith(".fewshot-")}
    assert len(left) == 3
    STARTS[start](folder)
    assert not left & set(names(folder))
    assert {"cache.npz", "cache.npz.sha256"} <= set(names(folder)), "what is whole stays"


def test_what_a_living_process_writes_stays(tmp_path: Path) -> None:
    """Another process of this machine, however long it takes; another machine, for a day."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
        mine = scratch_name()
        living = mine.replace(f"-{os.getpid()}-", f"-{other.pid}-")
        elsewhere = ".fewshot-another_machine-1-"
        old = time.time() - 2 * leftovers.DAY
        kept = [f"{mine}a", f"{living}b", f"{elsewhere}c", ".cache-abcdefg1", ".cache-of-mine"]
        gone = [f"{elsewhere}d", ".download-abcdefg2"]
        for name in kept + gone:
            (tmp_path / name).mkdir()
            (tmp_path / name / "half").touch()
        for name in [f"{mine}a", f"{living}b", ".cache-of-mine", *gone]:
            for path in (tmp_path / name / "half", tmp_path / name):
                os.utime(path, (old, old))
        remove_leftovers(tmp_path)
        assert names(tmp_path) == sorted(kept)
        other.kill()


# --- tables ---------------------------------------------------------------------------


def test_no_cell_is_a_formula_and_every_name_comes_back(tmp_path: Path) -> None:
    cells = ["=1+1", "+1", "-a.png", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "'quoted", "plain", "a=b"]
    write_table(tmp_path / "table.csv", [["name", "=head"], *([cell, -1.5] for cell in cells)])
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as file:
        head, *rows = list(csv.reader(file))
    assert head == ["name", "'=head"]
    assert not any(name[0] in "=+-@\t\r\n" for name, _ in rows)
    assert [number for _, number in rows] == ["-1.5"] * len(cells), "numbers stay numbers"
    assert [name.removeprefix("'") for name, _ in rows] == cells


def test_a_name_that_is_not_utf8_is_written_with_its_bytes(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    assert printable(name) == "caf\\xe9.png"
    write_table(tmp_path / "table.csv", [[name]])
    assert (tmp_path / "table.csv").read_bytes() == b"caf\\xe9.png\r\n"
