"""Two runs beside each other, as TensorBoard is opened on: trained and tested, small."""

from pathlib import Path

import pytest
from once import Once

from fewshot.cli.main import main

SMALL = (
    *("--model.backbone.width=8", "--data.queries=3", "--data.val_episodes=8"),
    *("--data.test_episodes=30", "--trainer.log_every_n_steps=4", "--trainer.accelerator=cpu"),
    *("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"),
)
PROTONET = (
    "--config=glyphs/protonet_5way1shot",
    "--data.train_episodes=16",
    "--trainer.max_epochs=3",
)
MAML = (
    *("--config=glyphs/maml_5way1shot", "--data.train_episodes=16", "--data.meta_batch_size=2"),
    *("--model.eval_curve=all", "--model.eval_inner_steps=3", "--trainer.max_epochs=3"),
)


def fill(folder: Path) -> None:
    """Train and test both."""
    for args in (PROTONET, MAML):
        assert main(["fit", *args, *SMALL, f"--trainer.default_root_dir={folder}"]) == 0


@pytest.fixture(scope="session")
def two_runs(once: Once) -> Path:
    """The folder of their folders."""
    return once("two_runs", fill) / "lightning_logs"
