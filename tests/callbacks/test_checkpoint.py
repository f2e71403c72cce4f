"""Which checkpoints a run keeps."""

from pathlib import Path

import lightning as L
import pytest
import torch

from fewshot import MAML, MLP, SinusoidDataModule
from fewshot.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from fewshot.tasks.estimates import Estimate


class Scripted(MAML):
    """Its validation errors are written down beforehand."""

    script: tuple[float, ...] = ()

    def _log_estimates(self, stage: str) -> None:
        mse = self.script[self.current_epoch]
        self.estimates[stage] = {"mse": Estimate(mse, 0.0)}
        self.log("val/mse", mse)


def run(root: Path, script: tuple[float, ...], **options: object) -> dict[str, int]:
    """The meta-step at which each checkpoint was taken; two steps an epoch."""
    data = SinusoidDataModule(train_episodes=8, meta_batch_size=4, val_episodes=1)
    learner = Scripted(MLP(1, [4]), task=data.task)
    learner.script = script
    L.Trainer(
        default_root_dir=root,
        callbacks=[BestCheckpoint(), LastCheckpoint()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        **({"max_epochs": len(script)} | options),  # type: ignore[arg-type]  # of several types
    ).fit(learner, data)
    files = {path.stem: path for path in root.rglob("*.ckpt")}
    return {
        name: torch.load(path, weights_only=True)["global_step"] for name, path in files.items()
    }


@pytest.mark.parametrize(
    ("script", "best"),
    [((3.0, 2.0, 1.0), 6), ((3.0, 1.0, 2.0), 4), ((1.0, 2.0, 3.0), 2), ((1.0, 3.0, 2.0), 2)],
)
def test_the_smallest_error_is_best_and_the_last_is_last(
    script: tuple[float, ...], best: int, tmp_path: Path
) -> None:
    assert run(tmp_path, script) == {"best": best, "last": 6}


def test_a_run_that_ends_before_its_first_validation_keeps_the_last(tmp_path: Path) -> None:
    assert run(tmp_path, (1.0,), max_steps=1) == {"last": 1}


def test_accuracy_is_best_when_large(tmp_path: Path) -> None:
    learner = MAML(MLP(4, [4]), task={"kind": "classification", "way": 5})
    callback = BestCheckpoint()
    trainer = L.Trainer(default_root_dir=tmp_path, logger=False, enable_progress_bar=False)
    callback.setup(trainer, learner, "fit")
    assert (callback.monitor, callback.mode) == ("val/accuracy", "max")
