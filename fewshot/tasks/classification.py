"""Classification: of examples, of texts by a benchmark's measures, of the frames of videos."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.arguments import Way
from fewshot.episodes.types import Examples
from fewshot.errors import FewshotError
from fewshot.tasks.base import EpisodeView, Task
from fewshot.tasks.estimates import Estimate
from fewshot.tasks.intervals import LEAST, t95

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Classification(Task):
    """N-way classification: logits (n, N) against labels (n,) int64; mean cross-entropy, accuracy.

    Args:
        way: classes of an episode at validation and test; None means that it differs from episode
            to episode, in training too.
        train_way: classes of a training episode; None means `way`.
        nota: some queries are of none of the N classes: their label is N, and the logits are (n, N
            + 1).
    """

    kind: ClassVar[str] = "classification"
    such_as: ClassVar[str] = "GlyphsDataModule"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy", "max")
    units: ClassVar[Mapping[str, str]] = {"accuracy": "%", "recall": "%"}
    prediction_columns: ClassVar[tuple[str, ...]] = ("label", "predicted", "probability")
    plain_labels: ClassVar[bool] = True
    """Whether targets are labels and nothing more."""

    way: Way | None
    train_way: Way | None = None
    nota: bool = False

    @property
    def output_size(self) -> int:
        """N logits, or with none of the above N + 1, for learners whose head has a fixed way."""
        return self.one_way + self.nota

    @property
    def one_way(self) -> int:
        """N, where all episodes have the same.

        Raises:
            FewshotError: the way differs from episode to episode.
        """
        if self.way is None:
            raise FewshotError(ANY_WAY.format(learner="this learner"))
        return self.way

    @property
    def has_probabilities(self) -> bool:
        """But for none of the above, whose logit is a rule's; see `NoneOfTheAbove`."""
        return self.plain_labels and not self.nota

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The share of queries whose largest logit is the label's.

        With none of the above also by its two parts.

        `accuracy_in_scope`: of the queries of the N classes; `recall_none`: of the others, the
        share that is found.
        """
        right = (outputs.argmax(-1) == targets).float()
        if not self.nota:
            return {"accuracy": right.mean()}
        none = (targets == outputs.shape[-1] - 1).float()
        return {
            "accuracy": right.mean(),
            "accuracy_in_scope": (right * (1 - none)).sum() / (1 - none).sum(),
            "recall_none": (right * none).sum() / none.sum(),
        }

    def labels(self, targets: Tensor) -> Tensor:
        """The labels (n,) in targets, which say more in some tasks."""
        return targets

    def answers(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor] | None:
        """The labels, and the answers: those of the largest logits."""
        return self.labels(targets), outputs.argmax(-1)

    def predictions(self, outputs: Tensor, targets: Tensor) -> list[Sequence[Any] | Tensor]:
        """The label, the predicted label and its probability."""
        probability, predicted = outputs.softmax(-1).max(-1)
        return [self.labels(targets).tolist(), predicted.tolist(), probability.tolist()]

    def picture(self, view: EpisodeView) -> "Figure | None":
        """Images: the support above, queries below, each marked with the class it was given."""
        inputs = view.episode.query.inputs
        if not isinstance(inputs, Tensor) or inputs.dim() != 4:
            return None
        from fewshot.tasks.drawing.images import draw_images

        predicted = view.outputs().argmax(-1)
        return draw_images(view.episode, predicted, view.queries, view.classes, view.names)


@dataclass(frozen=True)
class Understanding(Classification):
    """Classification as in SuperGLUE (arXiv:1905.00537): targets (n,) ``label + way * question``.

    Args:
        measures: what is measured: `accuracy`; `f1_macro`, the mean F1 of the classes; `f1a`, the
            F1 of class 1 over all answers; `em`, the share of questions all of whose answers are
            right.
    """

    kind: ClassVar[str] = "understanding"
    units: ClassVar[Mapping[str, str]] = dict.fromkeys(("accuracy", "f1", "f1a", "em"), "%")
    plain_labels: ClassVar[bool] = False

    measures: Sequence[str] = ("accuracy",)

    def __post_init__(self) -> None:
        if unknown := set(self.measures) - set(MEASURES):
            raise FewshotError(
                f"the measure {min(unknown)!r} is unknown; use one of {', '.join(MEASURES)}"
            )

    def labels(self, targets: Tensor) -> Tensor:
        """The labels (n,); -1 stays what it is."""
        return torch.where(targets < 0, targets, targets % self.one_way)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return super().loss(outputs, self.labels(targets))

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The measures by name, accuracy always among them."""
        predicted, labels = outputs.argmax(-1), self.labels(targets)
        groups = targets.div(self.one_way, rounding_mode="floor")
        names = dict.fromkeys(("accuracy", *self.measures))
        return {name: MEASURES[name](predicted, labels, groups, self.one_way) for name in names}


@dataclass(frozen=True)
class Reading(Classification):
    """A choice among a question's candidates; several may be right: ReCoRD (arXiv:1810.12885).

    Targets (n, C, 2) hold each candidate's exact match with the best of the answers and its F1 of
    words, both of 0 ... 1; -1 where a question has fewer than C candidates, or is unlabelled. The
    logits (n, C) must be the smallest where there is no candidate.
    """

    kind: ClassVar[str] = "reading"
    units: ClassVar[Mapping[str, str]] = {"accuracy": "%", "f1": "%"}
    plain_labels: ClassVar[bool] = False

    way: Way | None = None

    def labels(self, targets: Tensor) -> Tensor:
        """The first right candidate (n,), -1 where there is none."""
        right = targets[..., 0] == 1
        return torch.where(right.any(-1), right.int().argmax(-1), -1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy with the first right candidate."""
        return F.cross_entropy(outputs, self.labels(targets))

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """`accuracy`, the share of questions with a right best candidate; `f1`, its mean F1."""
        chosen = targets.gather(1, outputs.argmax(-1)[:, None, None].expand(-1, 1, 2))[:, 0]
        exact, f1 = chosen.clamp(min=0).mean(0)
        return {"accuracy": exact, "f1": f1}


def _f1_macro(predicted: Tensor, labels: Tensor, groups: Tensor, way: int) -> Tensor:
    """The mean F1 of the classes."""
    from torchmetrics.functional.classification import multiclass_f1_score

    return multiclass_f1_score(predicted, labels, way, average="macro")


def _f1_of_answers(predicted: Tensor, labels: Tensor, groups: Tensor, way: int) -> Tensor:
    """The F1 of class 1 over all answers."""
    from torchmetrics.functional.classification import binary_f1_score

    return binary_f1_score(predicted, labels)


def _exact_match(predicted: Tensor, labels: Tensor, groups: Tensor, way: int) -> Tensor:
    """The share of groups with no wrong answer."""
    _, places = torch.unique(groups, return_inverse=True)
    wrong = torch.zeros(int(places.max()) + 1, device=labels.device)
    return (wrong.index_add(0, places, (predicted != labels).float()) == 0).float().mean()


MEASURES: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "accuracy": lambda predicted, labels, _, way: (predicted == labels).float().mean(),
    "f1_macro": _f1_macro,
    "f1a": _f1_of_answers,
    "em": _exact_match,
}


@dataclass(frozen=True)
class VideoClassification(Classification):
    """Frame classification judged by video: `accuracy_video` is the mean over all episodes' videos.

    A video's accuracy is that over its frames; `Examples.marks` says which frame is of which video.
    The interval is t s / sqrt(videos), with Student's t; that of one or two videos is unknown. The
    table of episodes keeps the number of videos, and the sums of their accuracies and of the
    squares. `accuracy` beside it is over the frames of an episode, averaged over episodes.
    """

    kind: ClassVar[str] = "video_classification"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy_video", "max")

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """``videos``, ``video_sum`` and ``video_squares``.

        Where nothing is marked an episode is one video.
        """
        right = (outputs.argmax(-1) == query.targets).float()
        videos = query.marks
        if videos is None:
            videos = torch.zeros_like(query.targets)
        rows = [
            torch.stack([one[of == video].mean() for video in of.unique()])
            for one, of in zip(right, videos, strict=True)
        ]
        return {
            "videos": torch.tensor([float(len(row)) for row in rows], device=right.device),
            "video_sum": torch.stack([row.sum() for row in rows]),
            "video_squares": torch.stack([row.square().sum() for row in rows]),
        }

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """The means over episodes, and ``accuracy_video`` over videos."""
        number, total, squares = (
            columns[name].double().sum() for name in ("videos", "video_sum", "video_squares")
        )
        mean = total / number
        variance = (squares - number * mean.square()).clamp(min=0) / (number - 1)
        known = number >= LEAST
        interval = t95(number.item() - 1) * (variance / number).sqrt().item() if known else math.nan
        others = {name: values for name, values in columns.items() if not name.startswith("video")}
        return {
            **super().estimates(others),
            "accuracy_video": Estimate(mean.item(), interval),
        }


ANY_WAY = (
    "{learner} has outputs for one way, but the benchmark's way differs from episode to episode;"
    " choose a learner of any way, such as PrototypicalNetwork or ProtoMAML"
)


def check_one_way(task: Task, learner: str) -> None:
    """Check that all episodes have the same way, for a `learner` with outputs for one way alone.

    Raises:
        FewshotError: they differ, between training and test or from episode to episode.
    """
    if isinstance(task, Classification) and task.way is None:
        raise FewshotError(ANY_WAY.format(learner=learner))
    if isinstance(task, Classification) and task.train_way not in (None, task.way):
        raise FewshotError(
            f"{learner} has one head for all episodes, but train_way is {task.train_way} and way is"
            f" {task.way}; set train_way to {task.way} or choose a learner of any way"
        )
