"""All that is wrong with a file, told at once."""

from pathlib import Path

from fewshot.errors import FewshotError

SHOWN = 5


class Faults:
    """Collects the faults of a file, each with its place and its remedy.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.told = path, list[str]()

    def add(self, place: str, what: str) -> None:
        """Note a fault."""
        self.told.append(f"{place} {what}")

    def check(self) -> None:
        """Say what was noted, if anything was: the first few, and how many more.

        Raises:
            FewshotError: in one line.
        """
        if self.told:
            more = len(self.told) - SHOWN
            rest = [f"and {more} more"] if more > 0 else []
            number = f"{len(self.told)} faults" if len(self.told) > 1 else "a fault"
            raise FewshotError(f"{self.path} has {number}: {'; '.join(self.told[:SHOWN] + rest)}")
