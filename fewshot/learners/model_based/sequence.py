"""What learners that read a support set item by item share: labels as inputs, and item order."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.engine.randomness import orders, reordered
from fewshot.episodes.types import Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.model_based.base import ModelBasedLearner
from fewshot.tasks import Classification, check_one_way


class SequenceLearner(ModelBasedLearner):
    """A classifier of one way that reads an episode as a sequence of features and one-hot labels.

    Labels are random in every episode. So is the order in which a support set is read, or else a
    network would learn that the first item always has the label 0: it is a function of the inputs
    alone, so that an episode has one result.

    Args:
        backbone: the network from inputs to features.
        **kwargs: arguments of `MetaLearner`.
    """

    takes = Classification
    fixed_way = True
    task: Classification

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        check_one_way(self.task, type(self).__name__)

    def ordered(self, support: Examples, inputs: Inputs) -> Examples:
        """The support sets in random order."""
        order = orders(inputs)
        assert isinstance(support.inputs, Tensor)
        return Examples(reordered(support.inputs, order), reordered(support.targets, order))

    def one_hot(self, labels: Tensor, dtype: torch.dtype) -> Tensor:
        """Labels (B, T) as (B, T, N).

        Raises:
            FewshotError: a label is none of the N that the learner was built for.
        """
        if labels.max() >= self.task.one_way:
            raise FewshotError(
                f"an episode has the label {int(labels.max())}, but this {type(self).__name__} was"
                f" built for way {self.task.one_way}, labels from 0; give it episodes of that way"
            )
        return F.one_hot(labels, self.task.one_way).to(dtype)
