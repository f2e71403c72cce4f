"""A bar for what is read in some time."""

from collections.abc import Iterable, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import track

Item = TypeVar("Item")
PROGRESS_FROM = 1000  # images; fewer take no time worth a progress line


def tracked(items: Iterable[Item], title: str, number: int | None = None) -> Iterable[Item]:
    """The items with a progress bar on the standard error, where they are many."""
    total = len(items) if number is None and isinstance(items, Sized) else number
    if (total or 0) < PROGRESS_FROM:
        return items
    return track(items, title, total, console=Console(stderr=True))
