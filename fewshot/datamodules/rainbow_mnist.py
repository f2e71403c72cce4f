"""RainbowMNIST: few training tasks, each MNIST's ten digits in a look of its own."""

from typing import Any, ClassVar

import numpy as np

from fewshot.arguments import Count, Natural, Way
from fewshot.datamodules.published import PublishedImageDataModule
from fewshot.datasets.rainbow_mnist import DIGITS, PARTS, load_rainbow_mnist
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.grouped import GroupedTasks
from fewshot.episodes.streams import Stage
from fewshot.errors import FewshotError

NEW_CLASSES = "rotation_classes", "class_mixing"
"""What would make classes that are of no task, or of two."""


class RainbowMNISTDataModule(PublishedImageDataModule):
    """RainbowMNIST: digits in 7 colours, 2 sizes, 4 turns; 56 tasks, 40/6/10, 28x28 colour.

    An episode is of one task: its classes are digits in one look, and test looks are new. Composed
    from MNIST (`root`, or `download`) on demand; 100 drawings of a digit in each task, none in two.
    For the question how few training tasks suffice. Paper: arXiv:1902.08438.

    Args:
        train_tasks: how many of the 40 training tasks are used; the first of them.
        split_seed: which tasks train, validate and test; the published lists are not kept.
        way: classes of an episode, up to 10.
        **kwargs: arguments of `PublishedImageDataModule`, but for `ways`, `shots`,
            `unequal_shots`, `query_alpha`, `rotation_classes` and `class_mixing`. With
            `label_assignment: fixed` label j is the digit j.
    """

    benchmark: ClassVar[str] = "RainbowMNIST"
    in_channels = 3
    image_size = 28

    def __init__(
        self, train_tasks: Count = 40, split_seed: Natural = 0, way: Way = DIGITS, **kwargs: Any
    ) -> None:
        super().__init__(way=way, **kwargs)
        if train_tasks > PARTS["train"]:
            raise FewshotError(
                f"train_tasks is {train_tasks}, but RainbowMNIST has {PARTS['train']} training"
                f" tasks; set train_tasks <= {PARTS['train']}"
            )
        for name, value in (
            ("way", self.way),
            ("train_way", self.train_way),
            ("val_way", self.val_way),
        ):
            if value > DIGITS:
                raise FewshotError(
                    f"{name} is {value}, but an episode of RainbowMNIST is of the {DIGITS} digits"
                    f" of one task; set {name} <= {DIGITS}"
                )
        for name in ("ways", "shots", "unequal_shots", "query_alpha", *NEW_CLASSES):
            if getattr(self, name):
                raise FewshotError(
                    f"RainbowMNIST draws episodes of one task, way and shot, which {name} does not"
                    f" go with; leave {name} out"
                )
        if self.label_assignment == "fixed" and self.train_way != DIGITS:
            raise FewshotError(
                f"label_assignment is fixed, with which label j is the digit j, but train_way is"
                f" {self.train_way}; set train_way to {DIGITS}"
            )
        self.train_tasks, self.split_seed = train_tasks, split_seed

    @property
    def split_name(self) -> str:
        """The shuffle of the tasks."""
        return f"tasks shuffled by {self.split_seed}"

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result."""
        return {**super().protocol(), "train_tasks": self.train_tasks}

    def load(self) -> dict[str, ClassDataset]:
        """The digits of each task of train, val and test."""
        return load_rainbow_mnist(
            self.root, self.split_seed, self.train_tasks, self.download, self.verify
        )

    def tasks(self, stage: Stage) -> GroupedTasks:
        """Tasks of digits in one look."""
        return self._grouped(stage, *self.sizes(stage))

    def training_tasks_alike(self) -> GroupedTasks | None:
        """Tasks in training's looks, of validation's sizes."""
        if self.label_assignment == "fixed" and self.val_way != self.train_way:
            return None
        way, shot, queries = self.sizes("val")
        if int(self.datasets["train"].counts.min()) < shot + queries:
            return None
        return self._grouped("train", way, shot, queries)

    def _grouped(self, stage: Stage, way: int, shot: int, queries: int) -> GroupedTasks:
        dataset = self.datasets[stage]
        groups = np.split(np.arange(len(dataset.classes)), len(dataset.classes) // DIGITS)
        ordered = stage == "train" and self.label_assignment == "fixed"
        return GroupedTasks(dataset, groups, way, shot, queries, ordered)
