"""A benchmark's labelled examples, one after the other: what learners without episodes train on."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.streams import ExampleStream, Stage
from fewshot.episodes.types import ExampleBatch
from fewshot.errors import FewshotError

VALUES = 2**24
"""Values of the inputs that are read at once, which is 64 MiB of floats."""


class ListsExamples:
    """Mix-in: a benchmark's examples by stage, as far as they can be listed."""

    seed: int
    batch_size: int
    augments: bool = False
    """Whether inputs of training are changed at random, so that none comes twice."""

    def parts(self, stage: Stage) -> Sequence[ClassDataset]:
        """The examples that a stage's episodes are drawn from; empty where nobody can list them."""
        return ()

    def number_of_examples(self, stage: Stage) -> int:
        """How many there are."""
        return sum(int(part.counts.sum()) for part in self.parts(stage))

    def examples_a_batch(self, stage: Stage, plain: bool = False) -> int:
        """How many examples a batch of a stage asks for, over all ranks.

        Args:
            stage: train, val or test.
            plain: whether a batch of training is one of plain examples.
        """
        return 0

    def every_example(self, stage: Stage, rank: int = 0, ranks: int = 1) -> Iterator[ExampleBatch]:
        """A rank's share of a stage's examples, in batches that go into 64 MiB as floats."""
        for part in self.parts(stage):
            stream = ExampleStream(part, self.seed)
            rows = np.array_split(np.arange(len(stream)), ranks)[rank]
            first = stream.at(rows[:1]).inputs
            values = sum(
                t.numel() for t in (first.values() if isinstance(first, dict) else [first])
            )
            size = max(16, min(1024, VALUES // max(1, values)))
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                yield ExampleBatch(stream.at(some), torch.from_numpy(some))

    def examples(self) -> ClassDataset:
        """The labelled examples of the training classes, for learners that train on them.

        Raises:
            FewshotError: the benchmark has no classes.
        """
        raise FewshotError(
            f"{type(self).__name__} has no classes, but the learner needs labelled examples of"
            " training classes; choose a classification benchmark, or a learner that trains on"
            " episodes"
        )

    def training_examples(self) -> Iterator[ExampleBatch]:
        """Each example of the training classes once, in batches of `batch_size`, in order."""
        stream = ExampleStream(self.examples(), self.seed)
        for start in range(0, len(stream), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(stream)))
            yield ExampleBatch(stream.at(rows), torch.from_numpy(rows))
