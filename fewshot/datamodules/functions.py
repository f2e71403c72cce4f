"""Few-shot regression benchmarks: random functions of one variable."""

from typing import Any, ClassVar

from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datasets.functions import FunctionTasks, Harmonic, Sinusoid, SinusoidAndLine
from fewshot.loading import Stage


class FunctionDataModule(EpisodicDataModule):
    """Regression on random functions of one variable; judged by the mean squared error of 100 points.

    Facts for backbones: `in_features`.

    Args:
        shot: support points of a task, K.
        queries: query points of a validation or test task.
        train_queries: query points of a training task.
        meta_batch_size: tasks a step, over all ranks.
        eval_batch_size: tasks evaluated at once by each rank.
        train_episodes: tasks an epoch, over all ranks.
        **kwargs: arguments of `EpisodicDataModule`.
    """

    functions: ClassVar[type[FunctionTasks]]
    in_features = 1

    def __init__(
        self,
        shot: int = 10,
        queries: int = 100,
        train_queries: int = 10,
        meta_batch_size: int = 25,
        eval_batch_size: int = 100,
        train_episodes: int = 25000,
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
        _ = self.tasks("train"), self.tasks("test")  # bad shots and queries are found here

    @property
    def task(self) -> dict[str, Any]:
        """Regression of one value."""
        return {"kind": "regression", "targets": 1}

    def tasks(self, stage: Stage) -> FunctionTasks:
        """The family of functions with the stage's shot and queries."""
        if stage == "train":
            return self.functions(self.train_shot, self.train_queries)
        return self.functions(self.shot, self.queries)


class SinusoidDataModule(FunctionDataModule):
    """Sinusoid: amplitude in [0.1, 5], phase in [0, pi], x in [-5, 5]. Paper: arXiv:1703.03400."""

    benchmark: ClassVar[str] = "Sinusoid"
    functions = Sinusoid


class HarmonicDataModule(FunctionDataModule):
    """Harmonic: sums of two sinusoids, one at double frequency, seen around a random place. Paper: arXiv:1908.11263."""

    benchmark: ClassVar[str] = "Harmonic"
    functions = Harmonic


class SinusoidAndLineDataModule(FunctionDataModule):
    """SinusoidAndLine: half of the tasks sinusoids, half straight lines. Paper: arXiv:1806.02817."""

    benchmark: ClassVar[str] = "SinusoidAndLine"
    functions = SinusoidAndLine
