"""Few-shot regression benchmarks: random functions of one variable."""

from collections.abc import Mapping
from typing import Any, ClassVar

from fewshot.arguments import Count
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datasets.functions import FunctionTasks, Harmonic, Sinusoid, SinusoidAndLine
from fewshot.datasets.revealed_sinusoid import RevealedSinusoid
from fewshot.episodes.streams import EpisodeStream, Stage, VaryingStream
from fewshot.errors import FewshotError


class FunctionDataModule(EpisodicDataModule):
    """Regression on random functions of one variable.

    Judged by the mean squared error of 100 points.

    Facts for backbones: `in_features`.

    Args:
        shot: support points of a task, K.
        queries: query points of a validation or test task.
        train_queries: query points of a training task.
        train_shots: smallest and largest number of support points of a training task, such as ``[3,
            20]``; each meta-batch draws its own, uniformly. None means `train_shot` always.
        meta_batch_size: tasks a step, over all ranks.
        eval_batch_size: tasks evaluated at once by each rank.
        train_episodes: tasks an epoch, over all ranks.
        **kwargs: arguments of `EpisodicDataModule`.
    """

    facts: ClassVar[tuple[str, ...]] = ("in_features",)
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {
        "class_path": "fewshot.MLP",
        "init_args": {"hidden": [40, 40]},
    }
    functions: ClassVar[type[FunctionTasks]]
    in_features = 1

    def __init__(
        self,
        shot: Count = 10,
        queries: Count = 100,
        train_queries: Count = 10,
        train_shots: tuple[Count, Count] | None = None,
        meta_batch_size: Count = 25,
        eval_batch_size: Count = 100,
        train_episodes: Count = 25000,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            shot=shot,
            queries=queries,
            train_queries=train_queries,
            meta_batch_size=meta_batch_size,
            eval_batch_size=eval_batch_size,
            train_episodes=train_episodes,
            **kwargs,
        )
        self.train_shots = train_shots
        _ = self.tasks("train"), self.tasks("test")  # bad shots and queries are found here
        if train_shots is not None:
            low, high = train_shots
            if not 1 <= low <= high or kwargs.get("train_shot") is not None:
                raise FewshotError(
                    f"train_shots is [{low}, {high}]; give the smallest and the largest number of"
                    " support points, in this order, at least 1, and leave out train_shot"
                )

    @property
    def task(self) -> dict[str, Any]:
        """Regression of one value."""
        return {"kind": "regression", "targets": 1}

    def tasks(self, stage: Stage) -> FunctionTasks:
        """The family of functions with the stage's shot and queries."""
        if stage == "train":
            return self.family(self.train_shot, self.train_queries)
        return self.family(self.shot, self.queries)

    def training_tasks_alike(self) -> FunctionTasks:
        """Training's functions, seen at as many points as validation's."""
        return self.family(self.shot, self.queries)

    def family(self, shot: int, queries: int) -> FunctionTasks:
        """The family of functions seen at so many points."""
        return self.functions(shot, queries)

    def stream(self, stage: Stage) -> EpisodeStream:
        """The endless list of a stage's episodes.

        In training with supports of several sizes, where asked for.
        """
        if stage != "train" or self.train_shots is None:
            return super().stream(stage)
        low, high = self.train_shots
        choices = [self.family(shot, self.train_queries) for shot in range(low, high + 1)]
        return VaryingStream(choices, self.seed, stage, self.meta_batch_size)


class SinusoidDataModule(FunctionDataModule):
    """Sinusoid: amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5]. Paper: arXiv:1703.03400.

    Args:
        reveal_task: the input also says which task it is of, so that training tasks are answered
            without their supports: 16 amplitudes, no phase, noise of 0.1; in validation and test
            what it says is drawn at random, and means nothing (arXiv:1912.03820). `in_features` is
            then 21. docs/challenges.md has the sizes.
        **kwargs: arguments of `FunctionDataModule`.
    """

    benchmark: ClassVar[str] = "Sinusoid"
    functions = Sinusoid

    def __init__(self, reveal_task: bool = False, **kwargs: Any) -> None:
        self.reveal_task = reveal_task
        super().__init__(**kwargs)
        self.in_features = 1 + RevealedSinusoid.TASKS if reveal_task else 1

    def family(self, shot: int, queries: int) -> FunctionTasks:
        """Training's tasks, with the amplitudes that the seed chooses where they are revealed."""
        if not self.reveal_task:
            return super().family(shot, queries)
        return RevealedSinusoid(shot, queries, training=True, seed=self.seed)

    def tasks(self, stage: Stage) -> FunctionTasks:
        """The family of functions with the stage's shot and queries."""
        if not self.reveal_task or stage == "train":
            return super().tasks(stage)
        return RevealedSinusoid(self.shot, self.queries, training=False, seed=self.seed)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        return super().protocol() | ({"reveal_task": True} if self.reveal_task else {})


class HarmonicDataModule(FunctionDataModule):
    """Harmonic: sums of two sinusoids, one at double frequency, seen around a random place.

    Paper: arXiv:1908.11263.
    """

    benchmark: ClassVar[str] = "Harmonic"
    functions = Harmonic


class SinusoidAndLineDataModule(FunctionDataModule):
    """SinusoidAndLine: half of the tasks sinusoids, half straight lines.

    Paper: arXiv:1806.02817.
    """

    benchmark: ClassVar[str] = "SinusoidAndLine"
    functions = SinusoidAndLine
