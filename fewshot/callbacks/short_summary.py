"""What is trained, in two or three lines before a training: in place of Lightning's table."""

import textwrap
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelSummary
from lightning.pytorch.utilities import rank_zero_only

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.learners.base import MetaLearner


class ShortSummary(ModelSummary):
    """Say the learner, its numbers, the benchmark and the plan of a training.

    Lightning's table has a row for each part of the learner, and counts operations that no example
    was given for. `trainer.callbacks` takes it, or another, in place of this one.
    """

    def __init__(self) -> None:
        super().__init__(max_depth=1)

    @rank_zero_only
    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print it."""
        for line in summary(trainer, pl_module):
            print(line)


def summary(trainer: L.Trainer, learner: L.LightningModule) -> list[str]:
    """The lines, of at most 80 columns."""
    of = f"with {type(learner.backbone).__name__}" if isinstance(learner, MetaLearner) else ""
    lines = [f"{type(learner).__name__} {of}".rstrip() + f": {_parameters(learner)}"]
    data = getattr(trainer, "datamodule", None)
    if isinstance(data, EpisodicDataModule):
        lines.append(f"{data.benchmark or type(data).__name__}: {_sizes(data)}")
    limits = {"epoch": trainer.max_epochs or -1, "step": trainer.max_steps}
    told = [f"{n} {unit}{'s' * (n > 1)}" for unit, n in limits.items() if n > 0]
    plan = f"for {', '.join(told)}" if told else "until stopped"
    lines.append(f"trains {plan} on {_device(trainer)}, {trainer.precision}")
    return [part for line in lines for part in textwrap.wrap(line, 80, subsequent_indent="  ")]


def _device(trainer: L.Trainer) -> str:
    kind = trainer.strategy.root_device.type
    return kind if trainer.world_size == 1 else f"{trainer.world_size} x {kind}"


def _sizes(data: EpisodicDataModule) -> str:
    found: dict[str, Any] = data.protocol()
    names = (("way", "-way"), ("shot", "-shot"), ("split", ""))
    sizes = [f"{found[name]}{unit}" for name, unit in names if found.get(name) not in (None, "")]
    counts = [f"{number} {stage}" for stage, number in data.episodes.items() if number]
    return f"{' '.join(sizes)}; episodes: {', '.join(counts)}"


def _parameters(learner: L.LightningModule) -> str:
    """How many numbers a learner has, and how many of them are trained."""
    every = list(learner.parameters())
    count = sum(p.numel() for p in every)
    trained = sum(p.numel() for p in every if p.requires_grad)
    share = "all trained" if trained == count else f"{trained:,} trained"
    return f"{count:,} parameters, {share}"
