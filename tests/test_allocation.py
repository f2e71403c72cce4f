"""Freed memory is kept where nobody has said otherwise."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import fewshot
from fewshot.cli import main as program
from fewshot.cli import run_options
from fewshot.engine import allocation

MB = 2**20
SCRIPT = f"""
import ctypes, resource, runpy, sys

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for size in SIZES:
        take(size * {MB})
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() // {MB}

def take(size):  # and fill it, of gigabytes every hundredth page, and free it
    block = library.malloc(size)
    step = resource.getpagesize() * (100 if size > 2**30 else 1)
    for place in range(0, size, step):
        ctypes.memset(block + place, 1, 1)
    library.free(block)

library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

SIZES = eval(sys.argv[3])
kept = runpy.run_path(sys.argv[1])["keep_freed_memory"](largest=eval(sys.argv[2]))
pages()
print(int(kept), pages())
"""


def megabytes_from_the_system(
    environment: Mapping[str, str] = MappingProxyType({}),
    largest: bool = True,
    sizes: tuple[int, ...] = (20, 12, 20, 30),
) -> tuple[bool, int]:
    """Whether memory was kept, and how much of it came from the system the second time round."""
    variables = {
        k: v for k, v in os.environ.items() if not k.startswith("MALLOC_") and k != "GLIBC_TUNABLES"
    }
    command = [sys.executable, "-c", SCRIPT, allocation.__file__, str(largest), str(sizes)]
    output = subprocess.run(
        command, env=variables | dict(environment), check=True, capture_output=True, text=True
    ).stdout
    kept, megabytes = output.split()
    return kept == "1", int(megabytes)


@pytest.mark.skipif(sys.platform != "linux", reason="keeps memory with glibc alone")
def test_freed_memory_is_kept_for_what_comes_next() -> None:
    assert megabytes_from_the_system() == (True, 0)
    assert megabytes_from_the_system(largest=False) == (True, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="keeps memory with glibc alone")
def test_large_blocks_are_kept_unless_the_user_says_otherwise() -> None:
    assert megabytes_from_the_system(sizes=(40, 70)) == (True, 0)
    kept, megabytes = megabytes_from_the_system(largest=False, sizes=(40, 70))
    assert kept
    assert megabytes >= 110


@pytest.mark.skipif(sys.platform != "linux", reason="keeps memory with glibc alone")
def test_blocks_of_gigabytes_are_kept() -> None:
    """A threshold in bytes would end at 2 GiB, and what is freed above it be given back."""
    assert megabytes_from_the_system(sizes=(2600,)) == (True, 0)


def test_python_users_have_it_by_name() -> None:
    assert fewshot.keep_freed_memory is allocation.keep_freed_memory


@pytest.mark.skipif(sys.platform != "linux", reason="keeps memory with glibc alone")
@pytest.mark.parametrize(
    "choice",
    [
        {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"},
        {"MALLOC_MMAP_MAX_": "65536"},
        {"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"},
    ],
    ids=["variables", "blocks", "tunables"],
)
def test_what_the_user_set_stands(choice: dict[str, str]) -> None:
    kept, megabytes = megabytes_from_the_system(choice)
    assert not kept
    assert megabytes >= 60  # glibc raises its own threshold to the blocks that it has seen freed


def test_the_program_has_an_option_for_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(run_options, "keep_freed_memory", lambda largest: asked.append(largest))
    quiet = ("--data=SinusoidDataModule", "--data.test_episodes=2", "--trainer.logger=false")
    root = f"--trainer.default_root_dir={tmp_path}"
    for choice in ("small", "all"):
        args = ["test", "--model=MAML", "--model.backbone=MLP", *quiet, root]
        assert program.main([*args, f"--freed_memory={choice}"]) == 0
    assert asked == [False]  # `all` was asked for at the start


def test_the_program_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(program, "keep_freed_memory", lambda: asked.append(True))
    assert program.main(["list"]) == 0
    assert asked == [True]
