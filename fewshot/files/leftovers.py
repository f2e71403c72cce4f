"""What killed processes leave beside the files that they were writing, and how it goes.

A file or folder that is being written has its writer in its name: the machine and the process. The
next start that uses the folder removes those whose writer is gone.
"""

import functools
import os
import platform
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

SCRATCH = re.compile(r"\.fewshot-(?P<machine>.+)-(?P<process>\d+)-\w+")
BEFORE = re.compile(r"\.(cache|download)-\w{8}")
"""What they were called by versions that did not say who writes."""
DAY = 86400  # seconds without a change after which another machine's is taken to be left


def scratch_name() -> str:
    """How the name begins of what this process is writing."""
    return f".fewshot-{_machine()}-{os.getpid()}-"


def remove_leftovers(folder: Path) -> None:
    """Remove what dead processes were writing in `folder`, once for each folder and process.

    Never what a living one writes: of this machine the process must be gone; of another one, which
    cannot be asked, the file must not have changed for a day.
    """
    _removed(os.path.abspath(folder), os.getpid())


def remove_leftovers_of_runs(root: str | os.PathLike[str]) -> None:
    """The same in the folders of all runs below a Trainer's root."""
    for pattern in ("checkpoints", "lightning_logs/*", "lightning_logs/*/checkpoints"):
        for folder in Path(root).glob(pattern):
            remove_leftovers(folder)


@functools.cache
def _removed(folder: str, process: int) -> None:
    with suppress(OSError):
        for name in os.listdir(folder):
            place = Path(folder, name)
            if not is_left(place):
                continue
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)


def is_left(place: Path) -> bool:
    """Whether a file or a folder is what a process was writing that is gone."""
    match = SCRATCH.fullmatch(place.name)
    if match and match["machine"] == _machine() and os.name == "posix":
        return not _lives(int(match["process"]))
    return bool(match or BEFORE.fullmatch(place.name)) and _unchanged(place)


@functools.cache
def _machine() -> str:
    """This machine's name; in a container, which numbers its processes anew, another one."""
    name = re.sub(r"\W", "_", platform.node(), flags=re.ASCII)[:40] or "unnamed"
    try:
        return f"{name}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return name


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)  # nothing is sent
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # somebody else's
    return True


def _unchanged(place: Path) -> bool:
    """Whether neither it nor what is in it has changed for a day."""
    try:
        times = [path.lstat().st_mtime for path in (place, *place.rglob("*"))]
        return time.time() - max(times) > DAY
    except OSError:
        return False
