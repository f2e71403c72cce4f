"""Task kinds: what the outputs of a learner are judged by.

A benchmark states its task as a dict of plain values (`DataModule.task`), which the command line links to the
learner and a checkpoint can hold; `make_task` builds the task kind from it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_f1_score, multiclass_f1_score

from fewshot.errors import FewshotError


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


@dataclass(frozen=True)
class Classification(Task):
    """N-way classification: logits (n, N) against labels (n,) int64; mean cross-entropy, accuracy.

    Args:
        way: classes of an episode at validation and test.
        train_way: classes of a training episode; None means `way`.
    """

    kind: ClassVar[str] = "classification"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy", "max")

    way: int
    train_way: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("way", self.way), ("train_way", self.train_way)):
            if value is not None and value < 2:
                raise FewshotError(f"{name} is {value}: an episode needs at least 2 classes; set {name} >= 2")

    @property
    def output_size(self) -> int:
        """N logits, for learners whose head has a fixed way."""
        return self.way

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The share of queries whose largest logit is the label's."""
        return {"accuracy": (outputs.argmax(-1) == targets).float().mean()}

    def labels(self, targets: Tensor) -> Tensor:
        """The labels (n,) in targets, which say more in some tasks."""
        return targets


@dataclass(frozen=True)
class Understanding(Classification):
    """Classification judged as SuperGLUE does (arXiv:1905.00537): targets (n,) are ``label + way * question``.

    Args:
        measures: what is measured: `accuracy`; `f1_macro`, the mean F1 of the classes; `f1a`, the F1 of class 1 over
            all answers; `em`, the share of questions all of whose answers are right.
    """

    kind: ClassVar[str] = "understanding"

    measures: Sequence[str] = ("accuracy",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if unknown := set(self.measures) - set(MEASURES):
            raise FewshotError(f"the measure {min(unknown)!r} is unknown; use one of {', '.join(MEASURES)}")

    def labels(self, targets: Tensor) -> Tensor:
        """The labels (n,); -1 stays what it is."""
        return torch.where(targets < 0, targets, targets % self.way)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return super().loss(outputs, self.labels(targets))

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The measures by name, accuracy always among them."""
        predicted, labels = outputs.argmax(-1), self.labels(targets)
        groups = targets.div(self.way, rounding_mode="floor")
        names = dict.fromkeys(("accuracy", *self.measures))
        return {name: MEASURES[name](predicted, labels, groups, self.way) for name in names}


def _exact_match(predicted: Tensor, labels: Tensor, groups: Tensor, way: int) -> Tensor:
    """The share of groups with no wrong answer."""
    _, places = torch.unique(groups, return_inverse=True)
    wrong = torch.zeros(int(places.max()) + 1, device=labels.device)
    return (wrong.index_add(0, places, (predicted != labels).float()) == 0).float().mean()


MEASURES: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "accuracy": lambda predicted, labels, _, way: (predicted == labels).float().mean(),
    "f1_macro": lambda predicted, labels, _, way: multiclass_f1_score(predicted, labels, way, average="macro"),
    "f1a": lambda predicted, labels, _, way: binary_f1_score(predicted, labels),
    "em": _exact_match,
}


@dataclass(frozen=True)
class Regression(Task):
    """Regression: outputs (n, targets) against targets (n, targets); mean squared error.

    Args:
        targets: values to predict for each query.
    """

    kind: ClassVar[str] = "regression"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("mse", "min")

    targets: int = 1

    @property
    def output_size(self) -> int:
        """One output a target value."""
        return self.targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean squared error."""
        return {"mse": F.mse_loss(outputs, targets)}


@dataclass(frozen=True)
class GaussianRegression(Regression):
    """Regression judged as a density: outputs (n, 2 * targets) are the means, then the standard deviations.

    A benchmark states `Regression`; a learner that predicts how sure it is judges itself by this. The loss is the
    negative log-likelihood a query; beside it stand the mean squared error of the means and `coverage95`, the share of
    target values within 1.96 deviations of the mean, which is 0.95 for a calibrated learner.
    """

    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("log_likelihood", "max")

    @property
    def output_size(self) -> int:
        """A mean and a standard deviation a target value."""
        return 2 * self.targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean negative log-likelihood."""
        return -gaussian_log_likelihood(targets, *outputs.chunk(2, -1)).mean()

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Log-likelihood a query, mean squared error, coverage of the 95 % band."""
        mean, deviation = outputs.chunk(2, -1)
        return {
            "log_likelihood": gaussian_log_likelihood(targets, mean, deviation).mean(),
            "mse": F.mse_loss(mean, targets),
            "coverage95": ((targets - mean).abs() <= 1.96 * deviation).float().mean(),
        }


def gaussian_log_likelihood(targets: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Log N(targets; mean, deviation^2) of values (n, targets), which are independent, summed to (n,)."""
    standard = (targets - mean) / deviation
    return -(0.5 * standard.square() + deviation.log() + 0.5 * math.log(2 * math.pi)).sum(-1)


KINDS: dict[str, type[Task]] = {cls.kind: cls for cls in (Classification, Understanding, Regression)}


def make_task(facts: Mapping[str, Any]) -> Task:
    """The task kind that `facts` describe, such as ``{"kind": "classification", "way": 5}``.

    Raises:
        FewshotError: the kind is unknown, or its facts are not the kind's.
    """
    arguments = dict(facts)
    kind = arguments.pop("kind", None)
    if kind not in KINDS:
        raise FewshotError(f"task kind {kind!r} is unknown; use one of {', '.join(sorted(KINDS))}")
    try:
        return KINDS[kind](**arguments)
    except TypeError as error:
        raise FewshotError(f"task {dict(facts)} does not fit the kind {kind!r} ({error})") from error


def check_one_way(task: Task, learner: str) -> None:
    """Check that training and test have the same way, for a `learner` whose outputs are for one way alone.

    Raises:
        FewshotError: they differ.
    """
    if isinstance(task, Classification) and task.train_way not in (None, task.way):
        raise FewshotError(
            f"{learner} has one head for all episodes, but train_way is {task.train_way} and way is {task.way};"
            f" set train_way to {task.way} or choose a learner of any way"
        )
