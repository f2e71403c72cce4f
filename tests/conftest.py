"""Fixtures for all tests."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; it is no part of the repository."""
    path = (Path(__file__).resolve().parents[1] / "../shared/data").resolve()
    if not path.is_dir():
        pytest.skip(f"no real data at {path}")
    return path
