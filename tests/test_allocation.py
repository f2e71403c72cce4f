"""Freed memory is kept where nobody has said otherwise."""

import os
import subprocess
import sys

import pytest

from fewshot.cli import main as program
from fewshot.engine import allocation

MB = 2**20
SCRIPT = f"""
import resource, runpy, sys

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in (20, 12, 20, 30):
        b"x" * (size * {MB})  # taken from the system, filled and freed
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() // {MB}

kept = runpy.run_path(sys.argv[1])["keep_freed_memory"]()
pages()
print(int(kept), pages())
"""


def megabytes_from_the_system(**environment: str) -> tuple[bool, int]:
    """Whether memory was kept, and how much of 82 MB came from the system the second time round."""
    variables = {
        k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"
    }
    command = [sys.executable, "-c", SCRIPT, allocation.__file__]
    output = subprocess.run(
        command, env=variables | environment, check=True, capture_output=True, text=True
    ).stdout
    kept, megabytes = output.split()
    return kept == "1", int(megabytes)


@pytest.mark.skipif(sys.platform != "linux", reason="keeps memory with glibc alone")
def test_freed_memory_is_kept_for_what_comes_next() -> None:
    assert megabytes_from_the_system() == (True, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="keeps memory with glibc alone")
@pytest.mark.parametrize(
    "choice",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
    ids=["variables", "tunables"],
)
def test_what_the_user_set_stands(choice: dict[str, str]) -> None:
    kept, megabytes = megabytes_from_the_system(**choice)
    assert not kept
    assert megabytes >= 80


def test_the_program_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(program, "keep_freed_memory", lambda: asked.append(True))
    assert program.main(["list"]) == 0
    assert asked == [True]
