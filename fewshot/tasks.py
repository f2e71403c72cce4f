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

from fewshot.episodes import Examples, marks_of
from fewshot.errors import FewshotError
from fewshot.metrics import Estimate, estimate
from fewshot.segmentation import (
    bootstrapped,
    by_class,
    foreground_background,
    overlaps,
    pixel_loss,
    pooled_ious,
)


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
            query: the queries of a meta-batch, which may be `fewshot.episodes.marked`.
            outputs: what the learner gave for them, (B, n, ...).
        """
        return {}

    def scores(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What training logs of the metrics (b,) of a meta-batch: their means."""
        return {name: values.mean() for name, values in columns.items()}

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """Results and their 95 % confidence intervals from the table of all episodes, (E,) by name: the means."""
        return {name: estimate(values) for name, values in columns.items()}


@dataclass(frozen=True)
class Classification(Task):
    """N-way classification: logits (n, N) against labels (n,) int64; mean cross-entropy, accuracy.

    Args:
        way: classes of an episode at validation and test; None means that it differs from episode to episode, in
            training too.
        train_way: classes of a training episode; None means `way`.
        nota: some queries are of none of the N classes: their label is N, and the logits are (n, N + 1).
    """

    kind: ClassVar[str] = "classification"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy", "max")

    way: int | None
    train_way: int | None = None
    nota: bool = False

    def __post_init__(self) -> None:
        for name, value in (("way", self.way), ("train_way", self.train_way)):
            if value is not None and value < 2:
                raise FewshotError(f"{name} is {value}: an episode needs at least 2 classes; set {name} >= 2")

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

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy."""
        return F.cross_entropy(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The share of queries whose largest logit is the label's; with none of the above also by its two parts.

        `accuracy_in_scope`: of the queries of the N classes; `recall_none`: of the others, the share that is found.
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
class VideoClassification(Classification):
    """Classification of frames, judged by video: `accuracy_video` is the mean over all videos of all episodes.

    A video's accuracy is that over its frames; `Marked.marks` says which frame is of which video. The interval is
    1.96 s / sqrt(videos). The table of episodes keeps the number of videos, and the sums of their accuracies and of the
    squares. `accuracy` beside it is over the frames of an episode, averaged over episodes.
    """

    kind: ClassVar[str] = "video_classification"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy_video", "max")

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """``videos``, ``video_sum`` and ``video_squares``; where nothing is marked an episode is one video."""
        right = (outputs.argmax(-1) == query.targets).float()
        videos = marks_of(query)
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
        number, total, squares = (columns[name].double().sum() for name in ("videos", "video_sum", "video_squares"))
        mean = total / number
        variance = (squares - number * mean.square()).clamp(min=0) / (number - 1)
        interval = 1.96 * (variance / number).sqrt() if number > 1 else torch.tensor(torch.nan)
        others = {name: values for name, values in columns.items() if not name.startswith("video")}
        return {**super().estimates(others), "accuracy_video": Estimate(mean.item(), interval.item())}


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


@dataclass(frozen=True)
class Segmentation(Task):
    """N-way segmentation: logits (n, N+1, h, w) against masks (n, H, W), 0 the background, 1..N classes, 255 ignored.

    Logits are brought to the masks' size bilinearly. The loss is the mean cross-entropy of the pixels. Results are sums
    over ALL episodes, not means of them: `miou`, the mean over the benchmark's classes of intersection over union, and
    `fb_iou`, the mean of the IoU of background and of foreground, whatever its class (arXiv:1908.06391, section 4.1).
    Their intervals are bootstrapped over episodes. The table of episodes keeps the counts of pixels.

    Args:
        way: classes of an episode besides the background.
        classes: the benchmark's classes by name; episodes are about some of them, `Marked.marks` says which.
    """

    kind: ClassVar[str] = "segmentation"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("miou", "max")

    way: int = 1
    classes: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.way < 1:
            raise FewshotError(f"way is {self.way}: an episode needs a class besides the background; set way >= 1")

    @property
    def output_size(self) -> int:
        """Logits of the background and of N classes."""
        return self.way + 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the pixels that are not ignored."""
        return pixel_loss(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The pixels of intersections and unions, `fewshot.segmentation.overlaps`."""
        return overlaps(outputs, targets)

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """``class_1``..``class_N``: which of the benchmark's classes each label stands for.

        Where the queries are not `fewshot.episodes.marked`, label n is class n - 1 in all episodes.
        """
        marks = marks_of(query)
        if marks is None:
            marks = torch.arange(self.way, device=query.targets.device).expand(len(query.targets), -1)
        return {f"class_{label}": marks[:, label - 1] for label in range(1, self.way + 1)}

    def scores(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """FB-IoU over the meta-batch."""
        intersections, unions = foreground_background(columns)
        return {"fb_iou": pooled_ious(intersections.sum(0), unions.sum(0)).nanmean()}

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """``miou`` and ``fb_iou``, also after each inner step and under attack, and the IoU of each class."""
        counts = ("intersection_", "union_", "class_")
        found = {name: estimate(values) for name, values in columns.items() if not name.startswith(counts)}
        start = "union_foreground"
        for suffix in (name.removeprefix(start) for name in columns if name.startswith(start)):
            sums = by_class(columns, self.way, self._classes(columns), suffix)
            found[f"miou{suffix}"] = bootstrapped(*sums)
            found[f"fb_iou{suffix}"] = bootstrapped(*foreground_background(columns, suffix))
            if not suffix:
                found |= self._of_each_class(*sums)
        return found

    def _classes(self, columns: Mapping[str, Tensor]) -> int:
        last = max(int(columns[f"class_{label}"].max()) for label in range(1, self.way + 1))
        return max(len(self.classes), last + 1)

    def _of_each_class(self, intersections: Tensor, unions: Tensor) -> dict[str, Estimate]:
        """``iou_<class>`` of the classes that the episodes were about."""
        names = [*self.classes, *map(str, range(len(self.classes), unions.shape[1]))]
        return {
            f"iou_{names[place]}": bootstrapped(intersections[:, [place]], unions[:, [place]])
            for place in unions.sum(0).nonzero().flatten().tolist()
        }


@dataclass(frozen=True)
class Ranking(Task):
    """Ranking of candidates: scores (n, candidates) against the column (n,) of the right one.

    A candidate of score -inf is none: it pads a row, or is another right answer that the protocol removes. The loss is
    the margin loss mean(max(0, margin - right + other)) over all other candidates; the metrics are means over the
    queries, and an episode counts by its queries, so that a mean over episodes is the literature's over all queries.

    Args:
        margin: by which the right candidate's score is to exceed another's.
    """

    kind: ClassVar[str] = "ranking"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("mrr", "max")
    hits: ClassVar[tuple[int, ...]] = (1, 5, 10)

    margin: float = 1.0

    @property
    def output_size(self) -> int:
        """One score a candidate."""
        return 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean margin loss over the pairs of the right and another candidate."""
        right = outputs.gather(-1, targets[..., None])
        others = (outputs != -math.inf).scatter(-1, targets[..., None], False)
        # where() twice: an excluded pair's infinity must not reach the gradient, not even times 0
        gaps = self.margin - right + torch.where(others, outputs, 0.0)
        return torch.where(others, gaps.relu(), 0.0).sum() / others.sum().clamp(min=1)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean reciprocal rank, and the share of queries among the first 1, 5 and 10."""
        ranks = mean_ranks(outputs, targets)
        hits = {f"hits{k}": (ranks <= k).float().mean() for k in self.hits}
        return {"mrr": ranks.reciprocal().mean(), **hits}

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """``query_count``: how many queries an episode has."""
        return {"query_count": query.targets.new_full((len(query.targets),), query.targets.shape[1])}

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """The means over the queries of all episodes."""
        values = {name: column for name, column in columns.items() if name != "query_count"}
        return {name: estimate(column, columns["query_count"]) for name, column in values.items()}


def mean_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Ranks (n,) from 1 of the candidates `targets` (n,) by `scores` (n, candidates), the mean rank where scores tie.

    Candidates of score -inf do not count. A NaN proves nothing: the right candidate's is last, another's comes first.

    >>> mean_ranks(torch.tensor([[2.0, 3.0, 2.0, 2.0, 1.0]]), torch.tensor([0]))
    tensor([3.])
    """
    right = scores.gather(-1, targets[..., None])
    others = (scores != -math.inf).scatter(-1, targets[..., None], False)
    better = others & ~(scores <= right)
    return 1.0 + better.sum(-1) + 0.5 * (others & (scores == right)).sum(-1)


KINDS: dict[str, type[Task]] = {
    cls.kind: cls for cls in (Classification, Understanding, VideoClassification, Ranking, Regression, Segmentation)
}


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


ANY_WAY = (
    "{learner} has outputs for one way, but the benchmark's way differs from episode to episode; choose a learner of"
    " any way, such as PrototypicalNetwork or ProtoMAML"
)


def check_one_way(task: Task, learner: str) -> None:
    """Check that all episodes have the same way, for a `learner` whose outputs are for one way alone.

    Raises:
        FewshotError: they differ, between training and test or from episode to episode.
    """
    if isinstance(task, Classification) and task.way is None:
        raise FewshotError(ANY_WAY.format(learner=learner))
    if isinstance(task, Classification) and task.train_way not in (None, task.way):
        raise FewshotError(
            f"{learner} has one head for all episodes, but train_way is {task.train_way} and way is {task.way};"
            f" set train_way to {task.way} or choose a learner of any way"
        )
