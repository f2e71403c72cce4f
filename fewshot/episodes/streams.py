"""Endless numbered lists of episodes and of plain examples, each a function of its number alone.

Episode number i of a stage is drawn with a generator seeded by (seed, stage, i) alone: the same
list whatever the workers, the ranks and the interruptions.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import Dataset

from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.distributions import NamedTasks, TaskDistribution, gather
from fewshot.episodes.types import Episode, ExampleBatch, Examples, MetaBatch, as_numbers

Stage: TypeAlias = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")


class EpisodeStream(Dataset[Episode]):
    """The endless list of a stage's episodes, addressed by number.

    ```python
    >>> from fewshot.episodes.distributions import ClassTasks
    >>> classes = ClassDataset(torch.arange(12).view(12, 1), np.full(4, 3), tuple("abcd"))
    >>> stream = EpisodeStream(ClassTasks(classes, way=2, shot=1, queries=2), seed=0, stage="test")
    >>> stream[7].support.inputs.flatten().tolist(), stream.class_names(7)
    ([11, 7], ('d', 'c'))
    >>> stream.__getitems__([7, 8]).support.inputs.shape  # a meta-batch of two
    torch.Size([2, 2, 1])
    ```

    Args:
        tasks: what the episodes are drawn from.
        seed: the benchmark's seed.
        stage: train, val or test; the same number gives another episode in another stage.
    """

    def __init__(self, tasks: TaskDistribution, seed: int, stage: Stage) -> None:
        self.tasks, self.seed, self.stage = tasks, seed, STAGES.index(stage)

    def __getitem__(self, number: int) -> Episode:
        """Episode `number`, without the axis B."""
        return self.tasks.draw(self._rng(number))

    def __getitems__(self, numbers: Sequence[int]) -> MetaBatch:
        """The meta-batch of these episodes; what a DataLoader calls."""
        parts = self.tasks.draw_many([self._rng(number) for number in numbers])
        return MetaBatch(parts, as_numbers(numbers))

    def class_names(self, number: int) -> tuple[str, ...] | None:
        """The names of the classes of episode `number` by label; None where they have none."""
        return names_of(self.tasks, self._rng(number))

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.stage, number])


def names_of(tasks: TaskDistribution, rng: np.random.Generator) -> tuple[str, ...] | None:
    """The names of the classes of the episode that this generator draws, where they have any."""
    return tasks.class_names(rng) if isinstance(tasks, NamedTasks) else None


class ExampleStream(Dataset[ExampleBatch]):
    """The endless list of a dataset's labelled examples, by number: pass after pass over all.

    Every pass has a random order of its own, a function of the seed and the pass alone. Labels are
    the places of the classes in the dataset.

    Args:
        dataset: the examples by class.
        seed: the benchmark's seed.
    """

    def __init__(self, dataset: ClassDataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.labels = np.repeat(np.arange(len(dataset.counts)), dataset.counts)
        self._pass, self._order = -1, self.labels  # the order of the pass that was asked for last

    def __len__(self) -> int:
        """The examples of a pass."""
        return len(self.labels)

    def __getitem__(self, number: int) -> ExampleBatch:
        """Example `number`, as a batch of one."""
        return self.__getitems__([number])

    def __getitems__(self, numbers: Sequence[int]) -> ExampleBatch:
        """The batch of these examples, inputs as they are stored; what a DataLoader calls."""
        passes, places = np.divmod(np.asarray(numbers, np.int64), len(self))
        rows = np.empty_like(places)
        for number in np.unique(passes):
            rows[passes == number] = self._order_of(int(number))[places[passes == number]]
        return ExampleBatch(self.at(rows), as_numbers(numbers))

    def at(self, rows: np.ndarray) -> Examples:
        """The examples at these rows (n,) of the dataset."""
        return Examples(
            gather(self.dataset.inputs, torch.from_numpy(rows)), torch.from_numpy(self.labels[rows])
        )

    def _order_of(self, number: int) -> np.ndarray:
        if number != self._pass:
            # STAGES has no such place: the orders have nothing in common with any episode
            rng = np.random.default_rng([self.seed, len(STAGES), number])
            self._pass, self._order = number, rng.permutation(len(self))
        return self._order


class VaryingStream(EpisodeStream):
    """A stream whose meta-batches come from one of several distributions each: other task sizes.

    Which one is a function of the seed, the stage and the number of the meta-batch, so that the
    tensors of a meta-batch stack, on all ranks alike.

    Args:
        choices: distributions, each as likely as the others.
        seed: the benchmark's seed.
        stage: train, val or test.
        meta_batch_size: episodes of a meta-batch, over all ranks.
    """

    def __init__(
        self, choices: Sequence[TaskDistribution], seed: int, stage: Stage, meta_batch_size: int
    ) -> None:
        super().__init__(choices[0], seed, stage)
        self.choices, self.meta_batch_size = choices, meta_batch_size

    def __getitem__(self, number: int) -> Episode:
        """Episode `number`, without the axis B."""
        return self._chosen(number).draw(self._rng(number))

    def __getitems__(self, numbers: Sequence[int]) -> MetaBatch:
        """The meta-batch of these episodes, which belong to one."""
        parts = self._chosen(numbers[0]).draw_many([self._rng(number) for number in numbers])
        return MetaBatch(parts, as_numbers(numbers))

    def class_names(self, number: int) -> tuple[str, ...] | None:
        """The names of the classes of episode `number` by label; None where they have none."""
        return names_of(self._chosen(number), self._rng(number))

    def _chosen(self, number: int) -> TaskDistribution:
        # a fourth number in the seed, so that no episode has this generator
        rng = np.random.default_rng([self.seed, self.stage, number // self.meta_batch_size, 1])
        return self.choices[int(rng.integers(len(self.choices)))]
