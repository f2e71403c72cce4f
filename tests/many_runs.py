"""Start runs in one moment in one folder, kill all at random, have all go on; and their twins.

`many_runs.py FOLDER NUMBER` leaves the killed runs in ``FOLDER/killed``, and those that nothing
disturbs in ``FOLDER/whole<seed>``.
"""

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml
from commands import QUIET, SINUSOID

from fewshot.cli.main import main

STEPS = 16
RUN = (
    *SINUSOID,
    *QUIET,
    *("--data.train_episodes=64", "--data.val_episodes=3", "--data.test_episodes=5"),
    *(f"--trainer.max_steps={STEPS}", "--checkpoint.every_n_steps=1"),
)


def seed_of(run: Path) -> int:
    """The seed of a run, by the record of its start."""
    seed = yaml.safe_load((run / "config.yaml").read_text())["seed_everything"]
    assert isinstance(seed, int)
    return seed


def all_at_once(commands: Sequence[Callable[[], int]]) -> list[int]:
    """Run each in a process of its own, as forks of this one; gives their exit codes."""
    children = []
    for command in commands:
        child = os.fork()
        if not child:
            os._exit(command())
        children.append(child)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def fit(root: Path, seed: int, *more: str) -> Callable[[], int]:
    args = (*RUN, f"--trainer.default_root_dir={root}", f"--seed_everything={seed}", *more)
    return lambda: main(["fit", *args])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    folder, seeds = Path(sys.argv[1]), range(int(sys.argv[2]))
    root = folder / "killed"
    kills = ("--trainer.callbacks=disturbances.Kills", "--trainer.callbacks.delay=0.01")
    steps = [random.randint(3, STEPS - 3) for _ in seeds]
    killed = all_at_once(
        [fit(root, seed, *kills, f"--trainer.callbacks.step={steps[seed]}") for seed in seeds]
    )
    assert killed == [-signal.SIGKILL] * len(seeds), killed
    runs = {seed_of(path.parent): path.parent for path in root.glob("*/*/config.yaml")}
    assert runs.keys() == set(seeds), runs
    resumed = all_at_once([fit(root, seed, f"--ckpt_path={runs[seed]}") for seed in seeds])
    assert resumed == [0] * len(seeds), resumed
    whole = all_at_once([fit(folder / f"whole{seed}", seed) for seed in seeds])
    assert whole == [0] * len(seeds), whole
