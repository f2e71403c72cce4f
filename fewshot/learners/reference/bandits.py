"""Reference policies for bandits, and the random one."""

from functools import cached_property
from typing import Annotated, Any, TypeAlias

from torch import Tensor

from fewshot.arguments import NonNegative, Range
from fewshot.environments.bandit_policies import (
    EpsilonGreedyIndex,
    RandomActor,
    ThompsonIndex,
    UCB1Index,
)
from fewshot.environments.bayes_optimum import BayesPolicy
from fewshot.environments.gittins import GittinsPolicy
from fewshot.environments.play import Actor
from fewshot.learners.reference.base import ReferencePolicy

Probability: TypeAlias = Annotated[float, Range(0, 1)]
Discount: TypeAlias = Annotated[float, Range(0, 1, above=True, below=True)]


class RandomPolicy(ReferencePolicy):
    """RandomPolicy: acts at random, in any environment; nothing is trained. Paper: none."""

    def actor(self, facts: Tensor | None) -> Actor:
        """All actions alike."""
        return RandomActor(self.task.place)


class EpsilonGreedy(ReferencePolicy):
    """EpsilonGreedy: pulls the arm of the best posterior mean, now and then any. Paper: none.

    Args:
        epsilon: the probability of any arm; 0 is greedy.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(self, epsilon: Probability = 0.05, **kwargs: Any) -> None:
        self.epsilon = epsilon
        super().__init__(**kwargs)

    def actor(self, facts: Tensor | None) -> Actor:
        """The mean, or a random arm."""
        return EpsilonGreedyIndex(self.task.place, self.epsilon)


class UCB1(ReferencePolicy):
    """UCB1: pulls the arm of the largest upper confidence bound. Paper: Auer et al. 2002.

    The bound is ``mean + scale * sqrt(2 log t / (2 + pulls))`` of the posterior's mean, so that no
    pull is spent on trying every arm first. The original's scale of 1 explores too long for short
    trials.

    Args:
        scale: of the confidence; 0.2 is best of 0.1, 0.2, 0.5 and 1 at 100 pulls of 5 arms.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(self, scale: NonNegative = 0.2, **kwargs: Any) -> None:
        self.scale = scale
        super().__init__(**kwargs)

    def actor(self, facts: Tensor | None) -> Actor:
        """The bound."""
        return UCB1Index(self.task.place, self.scale)


class ThompsonSampling(ReferencePolicy):
    """ThompsonSampling: pulls the arm that is best in a draw of the posterior.

    Paper: arXiv:1707.02038.

    Args:
        optimistic: let no draw be below the posterior's mean (optimistic Thompson sampling).
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(self, optimistic: bool = False, **kwargs: Any) -> None:
        self.optimistic = optimistic
        super().__init__(**kwargs)

    def actor(self, facts: Tensor | None) -> Actor:
        """The draw."""
        return ThompsonIndex(self.task.place, self.optimistic)


class GittinsIndex(ReferencePolicy):
    """GittinsIndex: pulls the arm of the largest Gittins index. Paper: Gittins 1979.

    Optimal where rewards are discounted for ever; Bernoulli arms.

    Args:
        discount: of a pull against the one before; 0.9 suits 10 pulls, 0.99 a hundred.
        **kwargs: arguments of `MetaLearner`.
    """

    def __init__(self, discount: Discount = 0.9, **kwargs: Any) -> None:
        self.discount = discount
        super().__init__(**kwargs)

    def actor(self, facts: Tensor | None) -> Actor:
        """The index."""
        return GittinsPolicy(self.task.place, self.discount)


class BayesOptimum(ReferencePolicy):
    """BayesOptimum: pulls what is best for the whole trial under the prior. Paper: none.

    By dynamic programming over all that short Bernoulli bandits may show: at most 16 pulls. No
    policy has a larger expected return.
    """

    @cached_property
    def policy(self) -> BayesPolicy:
        """The policy, with what it has found out so far."""
        return BayesPolicy(self.task.place)

    def actor(self, facts: Tensor | None) -> Actor:
        """The expected reward of what is left."""
        return self.policy
