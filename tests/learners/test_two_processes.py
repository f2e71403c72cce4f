"""Every family trains the same weights by two processes (DDP, gloo) as by one."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = """
import sys, warnings
import lightning as L
import numpy as np
import torch
import fewshot
from fewshot import MLP, SinusoidDataModule
from fewshot.datamodules import ImageDataModule
from fewshot.datasets.base import ClassDataset

warnings.filterwarnings("ignore")
torch.set_num_threads(1)

class Images(ImageDataModule):
    benchmark, can_download, in_channels, image_size = "Images", False, 1, 4
    def load(self):
        images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (48, 1, 4, 4), np.uint8))
        names = tuple(f"class{i}" for i in range(6))
        return {stage: ClassDataset(images, np.full(6, 8, np.int64), names) for stage in ("train", "val", "test")}

ARGUMENTS = {
    "PrototypicalNetwork": {"learn_scale": True},
    "RelationNetwork": {"hidden": 8},
    "Baseline": {"train_classes": 6, "head_epochs": 3},
    "SNAIL": {"shot": 2, "filters": 4, "keys": (4, 4, 4), "values": (4, 4, 4)},
    "CNP": {"width": 8},
    "R2D2": {},
}

def data(name):
    sizes = {"meta_batch_size": 4, "train_episodes": 8, "val_episodes": 3, "eval_batch_size": 1, "queries": 3}
    if name == "CNP":
        return SinusoidDataModule(shot=5, **sizes)
    ways = (2, 4) if name == "R2D2" else None  # episodes of several sizes
    return Images(way=3, shot=2, batch_size=12, ways=ways, **sizes)

for name, arguments in ARGUMENTS.items():
    for devices in (2, 1):
        torch.manual_seed(0)
        benchmark = data(name)
        learner = getattr(fewshot, name)(MLP(benchmark.in_features, (8,)), task=benchmark.task, **arguments)
        if name == "RelationNetwork":  # its batch normalisation has statistics of each rank's own, as everywhere
            learner.relation.score[0] = torch.nn.Identity()
        trainer = L.Trainer(
            accelerator="cpu", devices=devices, strategy="ddp_fork" if devices > 1 else "auto", precision="64-true",
            max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, default_root_dir=sys.argv[1],
        )
        class Saver(L.Callback):
            def on_fit_end(self, trainer, module):
                held = {"weights": dict(module.named_parameters()), "val": module.columns["val"]}
                torch.save(held, f"{sys.argv[1]}/{name}-{trainer.world_size}-{trainer.global_rank}.pt")
        trainer.callbacks.append(Saver())
        trainer.fit(learner, benchmark)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("ddp")
    (found / "script.py").write_text(SCRIPT)
    command = [sys.executable, str(found / "script.py"), str(found)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert process.returncode == 0, process.stderr[-3000:]
    return found


@pytest.mark.parametrize("name", ["PrototypicalNetwork", "RelationNetwork", "Baseline", "SNAIL", "CNP", "R2D2"])
def test_two_processes_train_the_same_weights_as_one(name: str, folder: Path) -> None:
    def saved(ranks: int, rank: int) -> Any:
        return torch.load(folder / f"{name}-{ranks}-{rank}.pt", weights_only=False)

    one = saved(1, 0)
    for other in (saved(2, 0), saved(2, 1)):
        for key, weight in one["weights"].items():
            torch.testing.assert_close(other["weights"][key], weight, rtol=1e-9, atol=1e-11)
        assert other["val"]["episode"].tolist() == [0, 1, 2]
        torch.testing.assert_close(other["val"]["loss"], one["val"]["loss"], rtol=1e-5, atol=1e-6)
    assert len(set(one["val"]["loss"].tolist())) == 3
