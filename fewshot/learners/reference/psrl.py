"""Posterior sampling for reinforcement learning (Strens, 2000; arXiv:1306.0940)."""

from typing import Any

from torch import Tensor

from fewshot.environments.play import Actor
from fewshot.environments.psrl import PosteriorSampling
from fewshot.learners.reference.bandits import Probability
from fewshot.learners.reference.base import ReferencePolicy


class PSRL(ReferencePolicy):
    """PSRL: draws an MDP of the posterior before each episode, and does what is best in it.

    Paper: arXiv:1306.0940.

    Args:
        samples: draw; false plans in the posterior's mean instead, which is greedy.
        epsilon: the probability of a random action.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(self, samples: bool = True, epsilon: Probability = 0.0, **kwargs: Any) -> None:
        self.samples, self.epsilon = samples, epsilon
        super().__init__(**kwargs)

    def actor(self, facts: Tensor | None) -> Actor:
        """The plan."""
        return PosteriorSampling(self.task.place, self.samples, self.epsilon)
