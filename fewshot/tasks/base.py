"""What every task kind has."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor

from fewshot.episodes.types import Examples
from fewshot.tasks.estimates import Estimate, estimate


class Task(ABC):
    """What a learner's outputs mean for one episode: their size, their loss, their metrics."""

    kind: ClassVar[str]
    monitor: ClassVar[tuple[str, Literal["min", "max"]]]
    """The metric that picks the best checkpoint, and which end of it is best."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Outputs a head needs for one query."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of outputs (n, output_size) against targets (n, ...), a scalar."""

    @abstractmethod
    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Scalars of one episode by name."""

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """What else a table of results keeps of each episode, (B,) by name.

        Args:
            query: the queries of a meta-batch, which may be `fewshot.episodes.types.marked`.
            outputs: what the learner gave for them, (B, n, ...).
        """
        return {}

    def scores(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What training logs of the metrics (b,) of a meta-batch: their means."""
        return {name: values.mean() for name, values in columns.items()}

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """Results and 95 % confidence intervals from all episodes' table, (E,) by name: means."""
        return {name: estimate(values) for name, values in columns.items()}
