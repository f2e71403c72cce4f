"""Every learner of the catalogue on a benchmark that it can learn, both tiny: for what must hold for all of them.

A new learner is covered by itself. It needs a line below only to be small, or where it takes another kind of task.
"""

from typing import Any, ClassVar

import numpy as np
import torch

from fewshot import MLP, FewshotError, GaussianProcessDataModule
from fewshot.catalogue import find, learners
from fewshot.datamodules import EpisodicDataModule, ImageDataModule
from fewshot.datasets.base import ClassDataset
from fewshot.hyperparameters import parameter_names
from fewshot.learners import MetaLearner

NAMES = [entry.name for entry in learners()]
UNTRAINED = {"GaussianProcess", "SimpleShot"}
"""Those with nothing to train."""
TRAINED = [name for name in NAMES if name not in UNTRAINED]

SMALL: dict[str, dict[str, Any]] = {
    "ANP": {"width": 8},
    "CNP": {"width": 8},
    "FineTune": {"steps": 3},
    "IMAML": {"inner_steps": 3, "cg_steps": 2},
    "MAMLPlusPlus": {"inner_steps": 2},
    "MANN": {"hidden": 8, "slots": 6, "slot_size": 5, "heads": 2},
    "RelationNetwork": {"hidden": 8},
    "Reptile": {"inner_steps": 2},
    "SNAIL": {"filters": 4, "keys": (4, 4, 4), "values": (4, 4, 4)},
}
"""Arguments that make a learner quick."""


class TinyImages(ImageDataModule):
    """Six classes of images of 4x4 pixels in each split: a pattern a class, and noise."""

    benchmark, can_download, in_channels, image_size = "TinyImages", False, 1, 4
    CLASSES: ClassVar[int] = 6

    def load(self) -> dict[str, ClassDataset]:
        rng = np.random.default_rng(0)
        patterns = rng.integers(0, 200, (3 * self.CLASSES, 1, 1, 4, 4))
        images = (patterns + rng.integers(0, 56, (3 * self.CLASSES, 8, 1, 4, 4))).astype(np.uint8)
        names, size = tuple(f"class{i}" for i in range(self.CLASSES)), 8 * self.CLASSES
        parts = torch.split(torch.from_numpy(images.reshape(-1, 1, 4, 4)), size)
        counts = np.full(self.CLASSES, 8, np.int64)
        return {
            stage: ClassDataset(part, counts, names)
            for stage, part in zip(("train", "val", "test"), parts, strict=True)
        }


SIZES: dict[str, Any] = {
    "queries": 3,
    "meta_batch_size": 4,
    "batch_size": 12,
    "eval_batch_size": 2,
    "train_episodes": 40,
    "val_episodes": 5,
    "test_episodes": 7,
}


def benchmarks(**sizes: Any) -> list[EpisodicDataModule]:
    """One benchmark a kind of task."""
    given = SIZES | sizes
    return [TinyImages(way=3, shot=2, **given), GaussianProcessDataModule(**{"shot": 4, **given})]


def pair(name: str, seed: int = 0, **sizes: Any) -> tuple[MetaLearner, EpisodicDataModule]:
    """The learner `name`, its weights drawn by `seed`, and a benchmark that it takes.

    Args:
        name: a class of the catalogue.
        seed: of the weights.
        **sizes: arguments of the benchmark.
    """
    cls = find(name)
    assert cls is not None
    refusals = []
    for benchmark in benchmarks(**sizes):
        facts = [fact for fact in parameter_names(cls) if fact not in ("backbone", "batchnorm")]
        arguments = {fact: getattr(benchmark, fact) for fact in facts if hasattr(benchmark, fact)}
        if "backbone" in parameter_names(cls):
            torch.manual_seed(seed)
            arguments["backbone"] = MLP(getattr(benchmark, "in_features", 1), (8,))
        try:
            learner = cls(**arguments, **SMALL.get(name, {}))
        except FewshotError as error:
            refusals.append(str(error))
        else:
            assert isinstance(learner, MetaLearner)
            return learner, benchmark
    raise AssertionError(f"{name} takes no benchmark of {__file__}; add one: {refusals}")
