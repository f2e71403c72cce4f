"""Proto-MAML (Triantafillou et al., arXiv:1903.03096)."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.inner_loop import Weights
from fewshot.episodes.types import Episode, Examples
from fewshot.learners.metric.classes import class_means
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.optimization.evaluation import Adapted
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification


class EpisodeHead(nn.Module):
    """A linear layer that has no weights of its own: every episode brings them, for any way."""

    weight: Tensor
    bias: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(0), persistent=False)
        self.register_buffer("bias", torch.empty(0), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (n, N) of features (n, D)."""
        return F.linear(features, self.weight, self.bias)


class ProtoMAML(OptimizationLearner):
    """Proto-MAML: MAML whose head starts from the prototypes, so that any way is possible.

    Paper: arXiv:1903.03096.

    With W = 2c and b = -||c||^2 the linear head is a Prototypical Network before the first inner
    step; the meta-gradient flows through the prototypes.

    Args:
        backbone: the network from inputs to features.
        inner_lr: learning rate of the inner loop, on the mean support loss.
        first_order: leave the second derivatives out of the meta-gradient.
        **kwargs: arguments of `OptimizationLearner`, without `head`.
    """

    fixed_arguments = ("head",)
    takes = Classification
    task: Classification
    fixed_way = False
    judges_nota = False  # no class, no prototype

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: Positive = 0.01,
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, head=EpisodeHead(), **kwargs)  # every episode fills it
        self.inner_lr, self.first_order = inner_lr, first_order
        self.way = self.task.way or 0  # each meta-batch says it

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Gradient descent from the learned body and the head that the prototypes give."""
        features = self.network.features(support.inputs)
        # As precise as the body's weights also under autocast, whose features are not.
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        prototypes = class_means(features, support.targets, self.way)
        head = {"head.weight": 2 * prototypes, "head.bias": -prototypes.square().sum(-1)}
        weights = self.initial_weights() | head
        return self.descend(support, weights, steps, self.inner_lr, self.first_order)

    def adapt_for(self, support: Examples, steps: int) -> Adapted:
        """The network after `steps` inner steps on one support set, of any way."""
        self.way = int(support.targets.max()) + 1
        return super().adapt_for(support, steps)

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt to and predict every episode of a meta-batch of one way."""
        # read here: inside vmap it has no value
        self.way = int(episodes.support.targets.max()) + 1
        return super().run(episodes, training)
