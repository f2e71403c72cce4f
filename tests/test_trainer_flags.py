"""The Trainer's flags about data do to episodes what Lightning's manual says."""

from pathlib import Path
from typing import Any

import lightning as L
import pytest
from lightning.pytorch.callbacks import Callback

from fewshot import MAML, MLP, SinusoidDataModule

TRAIN, VAL, TEST = 4, 5, 6  # batches of two episodes


class Numbers(Callback):
    """The numbers of the episodes that each stage saw, pass by pass."""

    def __init__(self) -> None:
        self.seen: dict[str, list[list[int]]] = {"train": [], "val": [], "test": [], "predict": []}

    def on_train_epoch_start(self, *args: Any) -> None:
        self.seen["train"].append([])

    def on_validation_epoch_start(self, *args: Any) -> None:
        self.seen["val"].append([])

    def on_test_epoch_start(self, *args: Any) -> None:
        self.seen["test"].append([])

    def on_predict_epoch_start(self, *args: Any) -> None:
        self.seen["predict"].append([])

    def on_train_batch_start(self, trainer: Any, module: Any, batch: Any, *args: Any) -> None:
        self.seen["train"][-1] += batch.numbers.tolist()

    def on_validation_batch_start(self, trainer: Any, module: Any, batch: Any, *args: Any) -> None:
        self.seen["val"][-1] += batch.numbers.tolist()

    def on_test_batch_start(self, trainer: Any, module: Any, batch: Any, *args: Any) -> None:
        self.seen["test"][-1] += batch.numbers.tolist()

    def on_predict_batch_start(self, trainer: Any, module: Any, batch: Any, *args: Any) -> None:
        self.seen["predict"][-1] += batch.numbers.tolist()


def run(root: Path, *callbacks: Callback, **flags: Any) -> dict[str, list[list[int]]]:
    """The episodes of two epochs, a test and a prediction."""
    numbers = Numbers()
    data = SinusoidDataModule(
        shot=2,
        queries=2,
        meta_batch_size=2,
        eval_batch_size=2,
        train_episodes=2 * TRAIN,
        val_episodes=2 * VAL,
        test_episodes=2 * TEST,
    )
    learner = MAML(MLP(1, [4]), task=data.task)
    trainer = L.Trainer(
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=root,
        callbacks=[*callbacks, numbers],
        **({"max_epochs": 2, "num_sanity_val_steps": 0} | flags),
    )
    trainer.fit(learner, data)
    trainer.test(learner, data, verbose=False)
    trainer.predict(learner, data)
    return numbers.seen


def first(batches: int) -> list[int]:
    return list(range(2 * batches))


WHOLE = {
    "train": [first(TRAIN), list(range(2 * TRAIN, 4 * TRAIN))],
    "val": 2 * [first(VAL)],
    "test": [first(TEST)],
    "predict": [first(TEST)],
}


@pytest.mark.filterwarnings("ignore:The .* does not have many workers")
@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        ({}, {}),
        ({"overfit_batches": 1}, {"train": 2 * [first(1)], "val": 2 * [first(1)]}),
        ({"overfit_batches": 0.5}, {"train": 2 * [first(2)], "val": 2 * [first(2)]}),
        ({"overfit_batches": 1.0}, {"train": 2 * [first(4)]}),
        ({"overfit_batches": 9}, {"train": 2 * [first(4)]}),
        ({"limit_train_batches": 3}, {"train": [first(3), list(range(6, 12))]}),
        ({"limit_train_batches": 0.25}, {"train": [first(1), [2, 3]]}),
        ({"limit_val_batches": 2}, {"val": 2 * [first(2)]}),
        ({"limit_val_batches": 0.6}, {"val": 2 * [first(3)]}),
        ({"limit_val_batches": 0}, {"val": []}),
        ({"limit_test_batches": 3}, {"test": [first(3)]}),
        ({"limit_test_batches": 0.5}, {"test": [first(3)]}),
        ({"limit_predict_batches": 2}, {"predict": [first(2)]}),
        ({"limit_predict_batches": 0.5}, {"predict": [first(3)]}),
        (
            {"fast_dev_run": True},
            {"train": [first(1)], "val": [first(1)], "test": [first(1)], "predict": [first(1)]},
        ),
        (
            {"fast_dev_run": 3},
            {"train": [first(3)], "val": [first(3)], "test": [first(3)], "predict": [first(3)]},
        ),
        ({"val_check_interval": 0.5}, {"val": 4 * [first(VAL)]}),
        ({"val_check_interval": 3}, {"val": 2 * [first(VAL)]}),
        (
            {"val_check_interval": 3, "check_val_every_n_epoch": None},  # counts over epochs
            {"val": 2 * [first(VAL)]},
        ),
        ({"check_val_every_n_epoch": 2}, {"val": [first(VAL)]}),
        ({"reload_dataloaders_every_n_epochs": 1}, {}),
        ({"num_sanity_val_steps": 2}, {"val": [first(2), *2 * [first(VAL)]]}),
        ({"num_sanity_val_steps": -1}, {"val": 3 * [first(VAL)]}),
    ],
)
def test_a_flag_takes_the_episodes_that_it_says(
    flags: dict[str, Any], changed: dict[str, list[list[int]]], tmp_path: Path
) -> None:
    assert run(tmp_path, **flags) == WHOLE | changed
