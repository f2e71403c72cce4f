"""Long runs: 20 000 meta-steps, and 60 validations with pictures through the command line.

Their memory stays flat, and their files are closed.

`make slow` runs it.
"""

import os
import sys
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import pytest

from fewshot import MAML, MLP, SinusoidDataModule
from fewshot.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from fewshot.cli.main import main

STEPS = 20_000
SCOPE = 1000  # steps whose memory is averaged, at the beginning and at the end


class Memory(L.Callback):
    """The resident memory in bytes after every tenth step."""

    last: ClassVar["Memory"]

    def __init__(self) -> None:
        self.resident: list[int] = []
        Memory.last = self

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        if trainer.global_step % 10 == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))


def open_files() -> set[str]:
    """What this process's file handles lead to, pipes and the like left out."""
    links = (Path("/proc/self/fd") / name for name in os.listdir("/proc/self/fd"))
    return {
        target
        for link in links
        if link.is_symlink() and (target := os.readlink(link)).startswith("/")
    }


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc"
)
def test_memory_is_flat_over_20_000_meta_steps(tmp_path: Path) -> None:
    data = SinusoidDataModule(
        train_episodes=2000, meta_batch_size=2, val_episodes=10, test_episodes=10
    )
    memory = Memory()
    before = open_files()
    trainer = L.Trainer(
        max_steps=STEPS,
        default_root_dir=tmp_path,
        callbacks=[memory, BestCheckpoint(), LastCheckpoint()],
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(MAML(MLP(1, hidden=[8]), task=data.task), data)
    assert trainer.global_step == STEPS
    number = SCOPE // 10
    first, last = (
        sum(part) / number for part in (memory.resident[:number], memory.resident[-number:])
    )
    print(
        f"resident: {first / 2**20:.1f} MiB in the first {SCOPE} steps, {last / 2**20:.1f} MiB in"
        " the last"
    )
    assert abs(last - first) / first < 0.02
    trainer.logger.finalize("success")  # type: ignore[union-attr]  # there is one
    assert open_files() - before == set()


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the memory of a process is read from /proc"
)
def test_memory_is_flat_over_60_validations_of_the_command_line(tmp_path: Path) -> None:
    # each draws a picture and a curve for TensorBoard; what was left of them were 1.3 MiB each time
    command = ["fit", "--model", "MAML", "--model.backbone", "MLP", "--data", "SinusoidDataModule"]
    sizes = ["--data.train_episodes=200", "--data.val_episodes=10", "--data.test_episodes=10"]
    run = ["--trainer.max_steps=3000", "--trainer.max_epochs=-1", f"--trainer.default_root_dir={tmp_path}"]  # fmt: skip
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.callbacks+=test_soak.Memory"]
    assert main([*command, *sizes, *run, *quiet]) == 0
    # not this module's, where the command line imports it by its name
    resident = sys.modules["test_soak"].Memory.last.resident
    first, last = (sum(part) / 10 for part in (resident[50:60], resident[-10:]))
    print(f"resident: {first / 2**20:.1f} MiB at step 500, {last / 2**20:.1f} MiB at step 3000")
    assert len(resident) == 300
    assert last - first < 16 * 2**20
