"""A callback that the user names takes the place of the command line's own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import FEW, SINUSOID
from lightning.pytorch.callbacks import (
    Callback,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    TQDMProgressBar,
)

from fewshot import FewshotError
from fewshot.callbacks.checkpoint import BestCheckpoint, LastCheckpoint
from fewshot.callbacks.pictures import EpisodePicture
from fewshot.callbacks.progress import EpisodeProgressBar
from fewshot.callbacks.short_summary import ShortSummary
from fewshot.cli.lightning import FewshotCLI, run

KINDS = (ProgressBar, ModelSummary, ModelCheckpoint, EpisodePicture)


def named(root: Path, config: str, *args: str) -> FewshotCLI:
    """A run of an epoch with the callbacks of a config."""
    file = root / "callbacks.yaml"
    file.write_text(f"trainer:\n  callbacks:\n{config}")
    more = ("--trainer.max_epochs=1", "--trainer.num_sanity_val_steps=0", *args)
    return run(
        ["fit", *SINUSOID, f"--config={file}", *FEW, f"--trainer.default_root_dir={root}", *more]
    )


def kinds(callbacks: Sequence[Callback]) -> list[type]:
    return [type(callback) for callback in callbacks if isinstance(callback, KINDS)]


OURS = [EpisodePicture, EpisodeProgressBar, ShortSummary, LastCheckpoint, BestCheckpoint]


@pytest.mark.parametrize(
    ("config", "replaced", "by"),
    [
        ("  - class_path: LearningRateMonitor\n", (), ()),
        ("  - class_path: TQDMProgressBar\n", (EpisodeProgressBar,), (TQDMProgressBar,)),
        ("  - class_path: ModelSummary\n", (ShortSummary,), (ModelSummary,)),
        (
            "  - class_path: ModelCheckpoint\n    init_args: {monitor: val/mse, save_top_k: 2}\n",
            (BestCheckpoint,),
            (ModelCheckpoint,),
        ),
        (
            "  - class_path: ModelCheckpoint\n    init_args: {monitor: val/mse, save_last: true}\n",
            (BestCheckpoint, LastCheckpoint),
            (ModelCheckpoint,),
        ),
        (
            "  - class_path: fewshot.callbacks.checkpoint.LastCheckpoint\n"
            "    init_args: {every_n_steps: 1}\n",
            (LastCheckpoint,),
            (LastCheckpoint,),
        ),
        (
            "  - class_path: fewshot.callbacks.pictures.EpisodePicture\n",
            (EpisodePicture,),
            (EpisodePicture,),
        ),
    ],
)
def test_a_named_callback_takes_the_place_of_ours(
    config: str, replaced: tuple[type, ...], by: tuple[type, ...], tmp_path: Path
) -> None:
    cli = named(tmp_path, config)
    expected = [kind for kind in OURS if kind not in replaced] + list(by)
    found = kinds(cli.trainer.callbacks)  # type: ignore[attr-defined]  # set from outside
    assert sorted(map(str, found)) == sorted(map(str, expected))
    files = list(tmp_path.rglob("checkpoints/*.ckpt"))
    assert sum(file.stem.startswith("last") for file in files) == 1
    assert torch.load(max(files), weights_only=True)["global_step"] == 2


def test_the_checkpoint_of_ones_own_is_tested(tmp_path: Path) -> None:
    config = "  - class_path: ModelCheckpoint\n    init_args: {monitor: val/mse, filename: mine}\n"
    cli = named(tmp_path, config)
    assert Path(str(cli.trainer.ckpt_path)).stem == "mine"


@pytest.mark.parametrize("option", ["every_n_steps", "every_minutes"])
def test_options_of_ours_are_not_ignored(option: str, tmp_path: Path) -> None:
    config = "  - class_path: ModelCheckpoint\n    init_args: {save_last: true}\n"
    with pytest.raises(FewshotError) as error:
        named(tmp_path, config, f"--checkpoint.{option}=3")
    value: Any = 3 if option == "every_n_steps" else 3.0
    assert str(error.value) == (
        f"checkpoint.{option} is {value}, but ModelCheckpoint of trainer.callbacks writes last.ckpt"
        " in its way; leave one of them out"
    )
