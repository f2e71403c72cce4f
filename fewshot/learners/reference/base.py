"""What reference policies share: they play the query's trials, and nothing is trained."""

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, NoReturn

from torch import Tensor

from fewshot.backbones.pixels import Pixels
from fewshot.environments.play import Actor
from fewshot.episodes.types import Episode, Examples, Inputs, count
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.outcome import Outcome
from fewshot.learners.playing import facts_of, outcome_of, play_all
from fewshot.tasks.control import Control


class ReferencePolicy(MetaLearner):
    """A policy that is written down: it begins each trial of the query anew.

    Args:
        **kwargs: arguments of `MetaLearner`, without `backbone`.
    """

    fixed_arguments = ("backbone",)
    trains_on = "nothing"
    takes = Control
    acts = True
    task: Control

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Pixels(1), **kwargs)
        _ = self.actor(None)  # which refuses an environment that it is not made for

    @abstractmethod
    def actor(self, facts: Tensor | None) -> Actor:
        """What acts; `facts` (n, F) are for those alone that are told them."""

    def adapt(self, support: Examples) -> None:
        """Nothing: a trial is learned from while it is played."""

    def predict(self, adapted: Any, inputs: Inputs) -> NoReturn:
        """No answer to single observations.

        Raises:
            FewshotError: always.
        """
        raise FewshotError(
            f"{type(self).__name__} acts by a whole trial, not by one observation; judge it with"
            " fewshot test"
        )

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Play the queries of all tasks at once."""
        actor = self.actor(facts_of(episodes.query))
        trials = play_all(self.task, actor, episodes.query)
        yield outcome_of(self.task, trials, count(episodes))
