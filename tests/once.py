"""What is dear to make, made once for all of pytest's workers."""

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

Once = Callable[[str, Callable[[Path], None]], Path]
"""Gives the folder of this name of the session, which the function fills if it is new."""


def between_workers(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Path:
    """The session's folder for temporary files that all of pytest's workers have in common."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if hasattr(request.config, "workerinput") else base


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Once:
    """Fill a folder once for all of pytest's workers; whoever comes meanwhile waits."""
    root = between_workers(tmp_path_factory, request)

    def folder(name: str, fill: Callable[[Path], None]) -> Path:
        found, done = root / name, root / f"{name}.done"
        with FileLock(root / f"{name}.lock"):
            if not done.exists():
                found.mkdir(exist_ok=True)
                fill(found)
                done.touch()
        return found

    return folder
