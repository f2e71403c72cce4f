"""What every task kind has: its loss, its metrics, and how both are shown."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from torch import Tensor

from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.hyperparameters import ChecksArguments
from fewshot.tasks.estimates import Estimate, estimate

if TYPE_CHECKING:  # imported where a picture is drawn
    from matplotlib.figure import Figure
    from torch import nn

    from fewshot.tasks.by_class import ClassResults

Normal: TypeAlias = tuple[Tensor, Tensor]
"""Means and standard deviations (Q, T) of normal distributions."""


@dataclass(frozen=True)
class EpisodeView:
    """An episode to draw, without the axis B and on the CPU, and what is known of its queries.

    What takes computing is a function: a kind calls what it draws.

    Args:
        episode: support and query.
        outputs: gives the learner's outputs (Q, ...).
        outputs_by_step: gives them by what they are, `outputs` last: as ``predicted``, or before
            and after inner steps.
        references: gives the benchmark's own distributions of the targets, by what they are.
        queries: queries to draw at most: of each class, or rows of them.
        classes: classes to draw at most.
        names: of the classes by label, where they have names.
    """

    episode: Episode
    outputs: Callable[[], Tensor]
    outputs_by_step: Callable[[], Mapping[str, Tensor]]
    references: Callable[[], Mapping[str, Normal]]
    queries: int = 5
    classes: int = 10
    names: Sequence[str] | None = None


class Task(ChecksArguments, ABC):
    """What a learner's outputs mean for one episode: their size, their loss, their metrics.

    And how they are shown: units of figures, columns of a table of predictions, a picture.
    """

    kind: ClassVar[str]
    """What messages call it."""
    such_as: ClassVar[str]
    """A benchmark of it, which messages name."""
    monitor: ClassVar[tuple[str, Literal["min", "max"]]]
    """The metric that picks the best checkpoint and ranks runs, and which end of it is best."""
    dense: ClassVar[bool] = False
    """Whether outputs are for every pixel: the head then reads feature maps."""
    acts: ClassVar[bool] = False
    """Whether examples are tasks to act in, and what a network reads comes of acting."""
    units: ClassVar[Mapping[str, str]] = {}
    """What metrics are written in, see `unit`; ``%`` is for shares, which lie in [0, 1]."""
    prediction_columns: ClassVar[tuple[str, ...]] = ("target", "predicted")
    """What `predictions.csv` says of each query."""
    image_folders: ClassVar[Mapping[str, str]] = {}
    """The columns whose values are images, and the folder that these are written to."""

    @property
    @abstractmethod
    def output_size(self) -> int:
        """Outputs a head needs for one query."""

    @property
    def has_probabilities(self) -> bool:
        """Whether the softmax of outputs (n, N) says how probable each of the labels 0..N-1 is."""
        return False

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of outputs (n, output_size) against targets (n, ...), a scalar."""

    @abstractmethod
    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Scalars of one episode by name."""

    def support_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The loss that an inner loop descends on: `loss`, but for kinds that have another."""
        return self.loss(outputs, targets)

    def head(self, features: int) -> "nn.Module | None":
        """The module from features (n, D) to outputs; None where a linear layer does."""
        return None

    def experience(
        self, examples: Examples, act: Callable[[Inputs], Tensor], step: int = 0
    ) -> Examples:
        """The examples that a network reads: as they are, or what comes of acting in their tasks.

        Args:
            examples: of a support or of a query.
            act: the network as it is now, from inputs to outputs.
            step: the number of the inner step that they are for.
        """
        return examples

    def probe(self, examples: Examples) -> Inputs:
        """Inputs of the shape of those that a network will read."""
        return examples.inputs

    def shown(self, outputs: Tensor, query: Examples) -> Tensor:
        """What is kept of outputs for pictures and tables."""
        return outputs

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """What else a table of results keeps of each episode, (B,) by name.

        Args:
            query: the queries of a meta-batch, which may be marked.
            outputs: what the learner gave for them, (B, n, ...).
        """
        return {}

    def answers(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """The label and the answer of each query, of kinds that choose among an episode's classes.

        Args:
            outputs: what the learner gave, (..., n, output_size).
            targets: what it is judged by, (..., n).

        Returns:
            Both (..., n) int64; N is none of the classes, and a label of -1 is not known.
        """
        return None

    def by_class(
        self, answers: Tensor, classes: Mapping[int, Sequence[str]]
    ) -> "ClassResults | None":
        """Results by the names of classes.

        Args:
            answers: of each query the number of its episode and its `answers`, (Q, 3), on the CPU.
            classes: the names of each episode's classes by label, by its number.
        """
        from fewshot.tasks.by_class import class_results

        return class_results(answers.numpy(), classes)

    def scores(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What training logs of the metrics (b,) of a meta-batch: their means."""
        return {name: values.mean() for name, values in columns.items()}

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """Results and 95 % confidence intervals from all episodes' table, (E,) by name: means."""
        return {name: estimate(values) for name, values in columns.items()}

    # ------------------------------------------------------------------ how they are shown

    def unit(self, metric: str) -> str:
        """What a metric is written in; empty for a plain number.

        What begins with a metric's name and an underscore is a variant of it, written alike:
        ``accuracy_step3``, ``accuracy_adversarial``. The longest name counts.
        """
        while metric not in self.units and "_" in metric:
            metric = metric.rpartition("_")[0]
        return self.units.get(metric, "")

    def predictions(self, outputs: Tensor, targets: Tensor) -> list[Sequence[Any] | Tensor]:
        """The values of each of `prediction_columns` for one episode's n queries.

        Args:
            outputs: the learner's (n, ...), on the CPU as float32.
            targets: what they are judged by, on the CPU.

        Returns:
            A list of n values a column; of those in `image_folders` labels (n, H, W), uint8.
        """
        return [listed(targets), listed(outputs)]

    def picture(self, view: EpisodeView) -> "Figure | None":
        """An episode with its predictions, drawn; None where there is no picture of such inputs."""
        return None


def listed(values: Tensor) -> list[Any]:
    """Values (n,) or (n, 1) as n plain ones, (n, T) as n lists."""
    found: list[Any] = (values.squeeze(-1) if values.dim() > 1 else values).tolist()
    return found
