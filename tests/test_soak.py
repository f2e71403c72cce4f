"""A long run: 20 000 meta-steps, whose memory stays flat and whose files are closed.

`make slow` runs it.
"""

import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest

from fewshot import MAML, MLP, SinusoidDataModule
from fewshot.callbacks.checkpoint import BestCheckpoint, LastCheckpoint

STEPS = 20_000
SCOPE = 1000  # steps whose memory is averaged, at the beginning and at the end


class Memory(L.Callback):
    """The resident memory in bytes after every tenth step."""

    def __init__(self) -> None:
        self.resident: list[int] = []

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
