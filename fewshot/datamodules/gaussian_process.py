"""Few-shot regression on Gaussian process draws, where the best possible prediction is known."""

from typing import Any, ClassVar

from torch import Tensor

from fewshot.arguments import Count, NonNegative, Positive
from fewshot.datamodules.functions import FunctionDataModule
from fewshot.datasets.gaussian_process import GaussianProcessTasks
from fewshot.episodes.types import Examples, Inputs
from fewshot.tasks.gaussian_process import posterior


class GaussianProcessDataModule(FunctionDataModule):
    """Gaussian process: smooth random functions on [-2, 2], seen with a little noise.

    Paper: arXiv:1807.01613.

    The noise is in the queries' values too: it bounds the log-likelihood that any learner can
    reach, which without it grows without limit where points lie close. Facts for learners:
    `length_scale`, `variance`, `noise`.

    Args:
        length_scale: of the squared exponential kernel, in the unit of x.
        variance: of the functions' values.
        noise: standard deviation of the observation noise; 0 for none.
        train_queries: query points of a training task.
        meta_batch_size: tasks a step, over all ranks.
        train_episodes: tasks an epoch, over all ranks.
        **kwargs: arguments of `FunctionDataModule`.
    """

    benchmark: ClassVar[str] = "Gaussian process"
    facts: ClassVar[tuple[str, ...]] = ("length_scale", "variance", "noise")
    length_scale: float
    variance: float
    noise: float

    def __init__(
        self,
        length_scale: Positive = 0.4,
        variance: Positive = 1.0,
        noise: NonNegative = 0.1,
        train_queries: Count = 50,
        meta_batch_size: Count = 16,
        train_episodes: Count = 32000,
        **kwargs: Any,
    ) -> None:
        self.length_scale, self.variance, self.noise = length_scale, variance, noise
        super().__init__(
            train_queries=train_queries,
            meta_batch_size=meta_batch_size,
            train_episodes=train_episodes,
            **kwargs,
        )

    def family(self, shot: int, queries: int) -> GaussianProcessTasks:
        """Functions of this kernel seen at so many points."""
        return GaussianProcessTasks(shot, queries, self.length_scale, self.variance, self.noise)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result on this benchmark."""
        kernel = {"length_scale": self.length_scale, "variance": self.variance, "noise": self.noise}
        return {**super().protocol(), **kernel}

    def references(self, support: Examples, inputs: Inputs) -> dict[str, tuple[Tensor, Tensor]]:
        """The exact posterior."""
        assert isinstance(inputs, Tensor)
        return {"exact posterior": self.posterior(support, inputs)}

    def posterior(self, support: Examples, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The best possible prediction at `inputs` (n, 1): exact mean and deviation (n, 1)."""
        assert isinstance(support.inputs, Tensor)
        return posterior(
            support.inputs, support.targets, inputs, self.length_scale, self.variance, self.noise
        )
