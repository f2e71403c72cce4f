"""What an outer step on tasks to act in is: one of the optimizer, or several on what was played."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from fewshot.hyperparameters import RemembersArguments
from fewshot.tasks import Task

if TYPE_CHECKING:
    from fewshot.episodes.types import Episode


class Acts(Protocol):
    """What an outer step asks of a learner."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """What the step changes."""

    def surrogate(self, episodes: "list[Episode]") -> tuple[Tensor, Tensor]:
        """The mean loss and KL of the adapted policies on held episodes."""

    def over_ranks(self, value: Tensor) -> Tensor:
        """The mean of a value over the processes."""


class Outer(RemembersArguments, ABC):
    """An outer step on episodes that are held as they were played."""

    epochs: int = 1
    """Optimizer steps on what was played."""

    @abstractmethod
    def loss(self, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss of outputs (M, ...) against what was played (M, C)."""

    def check(self, optimizer: Optimizer) -> None:
        """Refuse an optimizer that does not go with it."""

    def prepare(self, learner: Acts, episodes: "list[Episode]") -> None:
        """Change the parameters' gradient to what the optimizer shall step along.

        Args:
            learner: whose parameters have the gradient of the mean loss.
            episodes: what was played.
        """
