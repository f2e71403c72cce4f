"""What a machine with a GPU can show in nine minutes: `make gpu`.

    python benchmarks/gpu.py [--check]

The tests that need a GPU, second-order MAML against its peers (`peers.py`), and MAML's full
Omniglot schedule (`schedule.py`). Each part has its time and is stopped when that is over; the
others run all the same. Without a GPU nothing runs; `--check` only says whether there is one.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).resolve().parents[1]


class Part(NamedTuple):
    """A command and the seconds that it may take."""

    name: str
    arguments: list[str]
    limit: float


PARTS = (
    Part(
        "tests marked gpu",
        [
            "-m",
            "pytest",
            "-q",
            "-m",
            "gpu",
            "tests/test_gpu.py",
            "tests/learners/test_every_precision.py",
        ],
        210,
    ),
    Part("peers", ["benchmarks/peers.py", "--device", "cuda", "--repeats", "5"], 200),
    Part("schedule", ["benchmarks/schedule.py", "--device", "cuda", "--steps", "300"], 120),
)


def run(part: Part) -> bool:
    """Run the part, print the time that it took, and say whether it succeeded."""
    print(f"--- {part.name}", flush=True)
    start = time.perf_counter()
    # a session of its own, so that what the part has started ends with it
    process = subprocess.Popen([sys.executable, *part.arguments], cwd=ROOT, start_new_session=True)
    try:
        outcome = f"exit status {status}" if (status := process.wait(part.limit)) else "done"
    except subprocess.TimeoutExpired:
        outcome = f"stopped: it may take {part.limit:.0f} s"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    print(f"--- {part.name}: {outcome}, {time.perf_counter() - start:.0f} s", flush=True)
    return outcome == "done"


def main() -> None:
    """Run all parts; the exit status is 0 where all have succeeded."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="say whether there is a GPU, and stop")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("there is no GPU that torch can use: nothing was run")
    if arguments.check:
        return
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    start = time.perf_counter()
    done = [run(part) for part in PARTS]
    print(f"--- in all {time.perf_counter() - start:.0f} s", flush=True)
    sys.exit(not all(done))


if __name__ == "__main__":
    main()
