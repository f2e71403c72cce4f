"""`fewshot sweep` with runs that are not real ones."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fewshot.cli.main import main

PROGRAM = (sys.executable, str(Path(__file__).resolve().parent / "fake_fit.py"))
"""What takes the place of `fewshot`."""
Sweep = Callable[..., str]
"""Runs the command, which ends with `code`; gives what it prints."""


def sweep_in(folder: Path, capfd: pytest.CaptureFixture[str]) -> Sweep:
    """What runs the command in a folder."""

    def run(*args: str, code: int = 0) -> str:
        capfd.readouterr()
        try:
            ended = main(["sweep", *args, f"--folder={folder}"])
        except SystemExit as stop:
            ended = int(stop.code or 0)
        printed = capfd.readouterr()
        assert ended == code, (printed, *(p.read_text() for p in folder.glob("slurm/*.err")))
        return printed.out + printed.err

    return run


def calls(folder: Path) -> list[list[Any]]:
    """Of each run that was started its name, checkpoint, threads, and whether it is a trial."""
    lines = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    return [json.loads(line) for line in lines]
