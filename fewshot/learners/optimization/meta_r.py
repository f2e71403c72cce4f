"""MetaR: a relation's vector, made of few pairs by a network, and one gradient step on it."""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.errors import FewshotError, check_at_least
from fewshot.learners.ranking import RankingLearner, distance_score


class MetaR(RankingLearner):
    """MetaR: a relation's vector from its support pairs, improved by one gradient step.

    Paper: arXiv:1909.01515.

    R = mean of MLP([h; t]) over the support; R' = R - inner_lr grad_R L(S), where L(S) is the mean
    margin loss of -|h + R - t| against a wrong tail for each pair; queries are scored by -|h + R' -
    t|. The meta-gradient goes through the step. Trains the vectors of entities too, unless the
    backbone is frozen.

    Args:
        backbone: ids of entities to their vectors, `EntityVectors`.
        inner_lr: rate of the step, beta.
        hidden: sizes of the network's hidden layers.
        first_order: take the step's gradient for a constant, as the authors' code does.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: an argument out of range, or the benchmark's task is not ranking.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: float = 1.0,
        hidden: tuple[int, ...] = (500, 200),
        first_order: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if inner_lr < 0:
            raise FewshotError(f"inner_lr is {inner_lr}; set it >= 0")
        for size in hidden:
            check_at_least(1, hidden=size)
        self.inner_lr, self.first_order = inner_lr, first_order
        sizes = (2 * self.features, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU()]
        self.relation_learner = nn.Sequential(*layers, nn.Linear(sizes[-1], self.features))

    def relation(self, pairs: Tensor, wrong: Tensor) -> Tensor:
        """Relation vectors (B, D) after the gradient step."""
        heads, tails = self.backbone(pairs).unbind(-2)  # B, K, D
        others = self.backbone(wrong)
        meta = self.relation_learner(torch.cat([heads, tails], -1)).mean(1)

        def support_loss(relation: Tensor) -> Tensor:
            right, against = (
                distance_score(relation[:, None], heads, one) for one in (tails, others)
            )
            # a sum over episodes, whose gradients are then each episode's own
            return (self.task.margin - right + against).relu().mean(1).sum()

        gradient = torch.func.grad(support_loss)(meta)
        adapted: Tensor = meta - self.inner_lr * (
            gradient.detach() if self.first_order else gradient
        )
        return adapted

    def score(self, relation: Tensor, heads: Tensor, candidates: Tensor) -> Tensor:
        """-|h + R' - t|."""
        return distance_score(
            relation[:, None, None], self.backbone(heads)[:, :, None], self.backbone(candidates)
        )
