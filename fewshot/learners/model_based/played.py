"""Trials that were played with a policy, as PPO learns from them.

Shapes: B tasks, n trials of each, T steps of a trial.
"""

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from fewshot.environments.play import Trials
from fewshot.episodes.types import Episode, MetaBatch


class Played(NamedTuple):
    """Trials of tasks that PPO learns from, and what was thought of them when they were played.

    Args:
        trials: (B * n, T, ...).
        outputs: of the policy, (B * n, T, size).
        advantages: standardised, (B * n, T).
        returns: the discounted rewards or regrets to come, which the values learn, (B * n, T).
        forgone: by each action of a step, in the advantages' units, (B * n, T, A); None where the
            rewards teach.
        size: B.
        batch: the tasks.
    """

    trials: Trials
    outputs: Tensor
    advantages: Tensor
    returns: Tensor
    forgone: Tensor | None
    size: int
    batch: MetaBatch

    def singles(self) -> Iterator[Episode]:
        """Each task."""
        return self.batch.singles()

    def parts(self, count: int) -> list["Played"]:
        """The tasks in so many parts: every `count`-th of them."""
        if count == 1:
            return [self]

        def part(values: Tensor, first: int) -> Tensor:
            by_task = values.view(self.size, -1, *values.shape[1:])
            return by_task[first::count].flatten(0, 1)

        return [
            Played(
                Trials(*(part(values, first) for values in self.trials)),
                part(self.outputs, first),
                part(self.advantages, first),
                part(self.returns, first),
                None if self.forgone is None else part(self.forgone, first),
                len(range(first, self.size, count)),
                self.batch,
            )
            for first in range(count)
        ]
