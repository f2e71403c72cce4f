"""What stands for `fewshot fit` in tests of sweeps: it leaves a run's folder, and no network.

The folder of the sweep may hold files for it, such as ``fails`` and ``hangs``, with a part of the
names of those runs that do so. A trial of a search (`test_after_fit=false`) leaves the values of
three validations: they are highest where `model.inner_lr` is 0.1.
"""

import json
import math
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

given = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[2:])
root, name = Path(given["trainer.default_root_dir"]), given["run_name"]
assert sys.argv[1] == "fit"
is_trial = given["test_after_fit"] == "false"
assert is_trial == any("ValidationValues" in value for value in given.values())


def does(word: str) -> bool:
    """Whether this run does what the word says."""
    return (root / word).exists() and (root / word).read_text() in name


def stopped(number: int, frame: FrameType | None) -> None:
    """End as a run does: with its checkpoint."""
    (run / "checkpoints/last.ckpt").touch()
    sys.exit(128 + number)


with (root / "calls").open("a") as calls:
    calls.write(
        json.dumps([name, given.get("ckpt_path"), os.environ.get("OMP_NUM_THREADS"), is_trial])
        + "\n"
    )
if "ckpt_path" in given:
    run = Path(given["ckpt_path"])
else:
    number = len([*(root / "lightning_logs").glob(f"{name}-*")])
    run = root / f"lightning_logs/{name}-{number}"
    (run / "checkpoints").mkdir(parents=True)
if does("fails"):
    print("a line", "fewshot: error: lr is x; give a number", "the last line", sep="\n", flush=True)
    sys.exit(2)
if does("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
if does("deaf"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if does("hangs"):
    signal.signal(signal.SIGTERM, stopped)
if does("hangs") or does("deaf"):
    (root / f"{name}.pid").write_text(str(os.getpid()))
    (root / f"{name}.ready").touch()
    time.sleep(60)
if does("meets"):
    (root / f"{name}.here").touch()
    until = time.monotonic() + 20
    while len([*root.glob("*.here")]) < 2:
        assert time.monotonic() < until, "nobody came"
        time.sleep(0.01)
seed = int(given.get("seed_everything", 0))
accuracy = 0.5 + seed / 100 + (0.1 if "MAML" in given["model"] else 0)
if "model.inner_lr" in given:
    accuracy -= abs(math.log10(float(given["model.inner_lr"])) + 1) / 10
if is_trial:
    values = [None if does("diverges") else accuracy - late / 100 for late in (2, 1, 0)]
    signal.signal(signal.SIGTERM, stopped)
    for step in range(0 if does("mute") else 3):
        known = [(100 * (i + 1), value) for i, value in enumerate(values[: step + 1])]
        (run / "new.json").write_text(json.dumps(known))
        (run / "new.json").rename(run / "validations.json")
        if step == 0 and does("waits"):
            (root / f"{name}.ready").touch()
            time.sleep(60)
    (run / "checkpoints/last.ckpt").touch()
    sys.exit(0)
content: dict[str, Any] = {
    "benchmark": "Glyphs",
    "way": 5,
    "shot": 1,
    "seed": 0,
    "seed_everything": seed,
    "learner": given["model"],
    "partial": does("stops"),
    "units": {"accuracy": "%"},
    "monitor": {"metric": "accuracy", "mode": "max"},
    "metrics": {"accuracy": {"mean": accuracy, "ci95": 0.01}},
}
if does("unlike"):
    content["monitor"] = {"metric": "mse", "mode": "min"}
    content["metrics"] = {"mse": {"mean": 1.0, "ci95": 0.1}}
(run / "config.yaml").write_text(json.dumps({**given, "model": {"class_path": given["model"]}}))
(run / "results.json").write_text(json.dumps(content))
