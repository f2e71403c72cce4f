"""Hands numbered episodes out in meta-batches, sharded over ranks, resumable.

Numbers are consecutive; of each meta-batch, rank r of R takes every R-th from r on.
"""

from collections.abc import Iterator
from typing import Any, Generic

from torch.utils.data import DataLoader, Dataset
from typing_extensions import TypeVar

from fewshot.episodes.types import MetaBatch
from fewshot.episodes.workers import translate_worker_errors
from fewshot.errors import FewshotError

Batch = TypeVar("Batch", default=MetaBatch)
"""What a loader hands out: meta-batches, or batches of plain examples."""


def share(start: int, end: int, rank: int, world_size: int) -> range:
    """The numbers from `start` to `end` - 1 that are rank's: every `world_size`-th of them.

    >>> list(share(8, 16, 1, 4))
    [9, 13]
    """
    return range(start + rank, end, world_size)


class EpisodeLoader(Generic[Batch]):
    """Hands a stream's episodes out in meta-batches: this rank's share, in order, resumable.

    Lightning takes it as a dataloader (it is an iterable with a length) and, because it is no
    `DataLoader`, leaves the sharding to it. With `repeat`, every pass goes on where the last one
    ended (training); without, every pass is the same list (validation, test). With `again`, that is
    so in training too (the Trainer's `overfit_batches`). For an `ExampleStream`, read "examples"
    for "episodes" below.

    Args:
        stream: the episodes, or plain examples.
        episodes: episodes of a pass, over all ranks.
        meta_batch_size: episodes of a meta-batch, over all ranks.
        repeat: go on in the list with every pass, and at the position of a checkpoint.
        limit: meta-batches that are taken of a pass, a number or a share: the Trainer's
            `limit_train_batches`. Only with it can a checkpoint tell the end of such a pass from
            its middle.
        rank: this process.
        world_size: all processes.
        num_workers: processes that draw ahead; 0 draws in this one.
        pin_memory: put the meta-batches into page-locked memory.
        timeout: seconds that a meta-batch of the workers is waited for; 0 waits for ever.
        again: begin every pass at the list's first, but for one that a checkpoint interrupted.

    Raises:
        FewshotError: the sizes do not fit one another; in a pass, what went wrong in a worker.
    """

    def __init__(
        self,
        stream: Dataset[Any],
        episodes: int,
        meta_batch_size: int,
        repeat: bool = False,
        limit: int | float | None = None,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        pin_memory: bool = False,
        timeout: float = 0,
        again: bool = False,
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
        self.stream, self.episodes = stream, episodes
        self.meta_batch_size, self.repeat = meta_batch_size, repeat
        self.again = again
        self.limit, self.rank, self.world_size = limit, rank, world_size
        self._next_batch = 0  # in the whole list, not in the pass
        self._left = 0  # meta-batches that the pass under way still has to give
        self._resumed = False  # the next pass is the rest of one that a checkpoint interrupted
        self._batches = _Batches()
        self._loader: DataLoader[Any] = DataLoader(
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

    @property
    def dataset(self) -> range:
        """The episodes of a pass by number, whose length Lightning's batch-size finder asks for."""
        return range(self.episodes)

    def _taken(self) -> int:
        """Meta-batches that are taken of a whole pass."""
        if self.limit is None:
            return len(self)
        if isinstance(self.limit, float):
            return int(len(self) * self.limit)
        return min(len(self), self.limit)

    def numbers(self) -> Iterator[list[int]]:
        """This rank's episode numbers of each meta-batch of the coming pass."""
        return iter(self._plan())

    def _plan(self) -> "_Batches":
        first = self._next_batch if self.repeat else 0
        length = self._left if self._resumed else self._taken()
        end = (first + length) * self.meta_batch_size if self.repeat else self.episodes
        starts = range(first * self.meta_batch_size, end, self.meta_batch_size)
        return _Batches(starts[:length], end, self.rank, self.world_size)

    def __iter__(self) -> Iterator[Batch]:
        """One pass. The position counts what was handed out, not what workers have drawn ahead."""
        if self.again and not self._resumed:
            self._next_batch = 0
        plan = self._plan()
        self._resumed, self._left = False, len(plan)
        self._batches.take(plan)
        for batch in translate_worker_errors(self._loader):
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
    """The batch sampler: the numbers of a pass's meta-batches, each made when it is asked for.

    Args:
        starts: the first number of each meta-batch, over all ranks.
        end: the number after the last.
        rank: this process.
        world_size: all processes.
    """

    def __init__(
        self, starts: range = range(0), end: int = 0, rank: int = 0, world_size: int = 1
    ) -> None:
        self.starts, self.end, self.rank, self.world_size = starts, end, rank, world_size

    def take(self, plan: "_Batches") -> None:
        """Have another pass's numbers: a DataLoader keeps the sampler that it was made with."""
        self.starts, self.end = plan.starts, plan.end
        self.rank, self.world_size = plan.rank, plan.world_size

    def __iter__(self) -> Iterator[list[int]]:
        for start in self.starts:
            stop = min(start + self.starts.step, self.end)
            yield list(share(start, stop, self.rank, self.world_size))

    def __len__(self) -> int:
        return len(self.starts)


def _as_is(batch: Any) -> Any:
    return batch  # `__getitems__` gives whole meta-batches
