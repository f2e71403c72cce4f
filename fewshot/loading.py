"""Seeded streams of episodes: the same list whatever the workers, the ranks and the interruptions.

Episode number i of a stage is drawn with a generator seeded by (seed, stage, i) alone. A loader
hands out consecutive numbers in meta-batches; of each meta-batch, rank r of R takes every R-th
episode from r on. Plain labelled examples, for learners that train without episodes, come from a
list of the same kind.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Generic, Literal, TypeAlias

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from typing_extensions import TypeVar

from fewshot.datasets.base import ClassDataset
from fewshot.distributions import TaskDistribution, gather
from fewshot.episodes import Episode, Examples, MetaBatch
from fewshot.errors import FewshotError
from fewshot.workers import told

Stage: TypeAlias = Literal["train", "val", "test"]
STAGES: tuple[Stage, ...] = ("train", "val", "test")
Item = TypeVar("Item", default=Episode)
"""What a loader hands out: meta-batches, or plain examples."""


class EpisodeStream(Dataset[Episode]):
    """The endless list of a stage's episodes, addressed by number.

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
        return self.tasks.draw_many([self._rng(number) for number in numbers])

    def _rng(self, number: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.stage, number])


class ExampleStream(Dataset[Examples]):
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

    def __getitem__(self, number: int) -> Examples:
        """Example `number`, as a batch of one."""
        return self.__getitems__([number])

    def __getitems__(self, numbers: Sequence[int]) -> Examples:
        """Inputs (n, ...) as they are stored, and labels (n,); what a DataLoader calls."""
        passes, places = np.divmod(np.asarray(numbers, np.int64), len(self))
        rows = np.empty_like(places)
        for number in np.unique(passes):
            rows[passes == number] = self._order_of(int(number))[places[passes == number]]
        return self.at(rows)

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
        return self._chosen(numbers[0]).draw_many([self._rng(number) for number in numbers])

    def _chosen(self, number: int) -> TaskDistribution:
        # a fourth number in the seed, so that no episode has this generator
        rng = np.random.default_rng([self.seed, self.stage, number // self.meta_batch_size, 1])
        return self.choices[int(rng.integers(len(self.choices)))]


class EpisodeLoader(Generic[Item]):
    """Hands a stream's episodes out in meta-batches: this rank's share, in order, resumable.

    Lightning takes it as a dataloader (it is an iterable with a length) and, because it is no
    `DataLoader`, leaves the sharding to it. With `repeat`, every pass goes on where the last one
    ended (training); without, every pass is the same list (validation, test). For an
    `ExampleStream`, read "examples" for "episodes" below.

    Args:
        stream: the episodes, or plain examples.
        episodes: episodes of a pass, over all ranks.
        meta_batch_size: episodes of a meta-batch, over all ranks.
        repeat: go on in the list with every pass.
        limit: meta-batches that are taken of a pass, a number or a share: the Trainer's
            `limit_train_batches`. Only with it can a checkpoint tell the end of such a pass from
            its middle.
        rank: this process.
        world_size: all processes.
        num_workers: processes that draw ahead; 0 draws in this one.
        pin_memory: put the meta-batches into page-locked memory.
        timeout: seconds that a meta-batch of the workers is waited for; 0 waits for ever.

    Raises:
        FewshotError: the sizes do not fit one another; in a pass, what went wrong in a worker.
    """

    def __init__(
        self,
        stream: Dataset[Item],
        episodes: int,
        meta_batch_size: int,
        repeat: bool = False,
        limit: int | float | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 0,
    ) -> None:
        if meta_batch_size < 1 or meta_batch_size % world_size:
            raise FewshotError(
                f"meta_batch_size {meta_batch_size} does not divide among {world_size} processes;"
                f" set it to a positive multiple of {world_size}"
            )
        if repeat and (episodes < 1 or episodes % meta_batch_size):
            raise FewshotError(
                f"train_episodes {episodes} is not a positive multiple of meta_batch_size"
                f" {meta_batch_size}; change one of them"
            )
        if episodes < world_size:
            raise FewshotError(
                f"{episodes} episodes are too few for {world_size} processes; ask for {world_size}"
                " or more"
            )
        self.stream, self.episodes, self.meta_batch_size, self.repeat = (
            stream,
            episodes,
            meta_batch_size,
            repeat,
        )
        self.limit, self.rank, self.world_size = limit, rank, world_size
        self._next_batch = 0  # in the whole list, not in the pass
        self._left = 0  # meta-batches that the pass under way still has to give
        self._resumed = False  # the next pass is the rest of one that a checkpoint interrupted
        self._batches = _Batches()
        self.numbers_at_hand: Sequence[int] = ()
        """The episodes of the meta-batch that was handed out last."""
        self._loader: DataLoader[Item] = DataLoader(
            stream,
            batch_sampler=self._batches,
            collate_fn=_as_is,
            num_workers=num_workers,
            pin_memory=pin_memory,
            persistent_workers=num_workers > 0,
            timeout=timeout if num_workers else 0,
        )

    def __len__(self) -> int:
        """This rank's meta-batches of a whole pass."""
        whole, rest = divmod(self.episodes, self.meta_batch_size)
        return whole + (rest > self.rank)

    def _taken(self) -> int:
        """Meta-batches that are taken of a whole pass."""
        if self.limit is None:
            return len(self)
        return (
            int(len(self) * self.limit)
            if isinstance(self.limit, float)
            else min(len(self), self.limit)
        )

    def numbers(self) -> Iterator[list[int]]:
        """This rank's episode numbers of each meta-batch of the coming pass."""
        first = self._next_batch if self.repeat else 0
        length = self._left if self._resumed else self._taken()
        end = (first + length) * self.meta_batch_size if self.repeat else self.episodes
        starts = range(first * self.meta_batch_size, end, self.meta_batch_size)
        for start in starts[:length]:
            yield list(
                range(start + self.rank, min(start + self.meta_batch_size, end), self.world_size)
            )

    def __iter__(self) -> Iterator[Item]:
        """One pass. The position counts what was handed out, not what workers have drawn ahead."""
        numbers = list(self.numbers())
        self._resumed, self._left = False, len(numbers)
        self._batches.numbers = numbers
        # not over self
        for batch, self.numbers_at_hand in zip(told(self._loader), numbers, strict=True):  # noqa: B020
            if self.repeat:
                self._next_batch += 1
                self._left -= 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The position in the list, for Lightning's checkpoint."""
        return {"next_batch": self._next_batch, "left": self._left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on at the position of a checkpoint."""
        self._next_batch, self._left = state["next_batch"], state["left"]
        self._resumed = self._left > 0


class _Batches:
    """The batch sampler: the numbers that its loader has set for the pass."""

    def __init__(self) -> None:
        self.numbers: list[list[int]] = []

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)


def _as_is(batch: Any) -> Any:
    return batch  # `__getitems__` gives whole meta-batches
