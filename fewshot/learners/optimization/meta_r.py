"""MetaR: a relation's vector, made of few pairs by a network, and one gradient step on it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, NonNegative
from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Episode, MetaBatch, count
from fewshot.learners.outcome import Outcome
from fewshot.learners.ranking import RankingLearner, distance_score, support_ids


class MetaR(RankingLearner):
    """MetaR: a relation's vector from its support pairs, improved by one gradient step.

    Paper: arXiv:1909.01515.

    R = mean of MLP([h; t]) over the support; R' = R - inner_lr grad_R L(S), where L(S) is the mean
    margin loss of -|h + R - t| against a wrong tail for each pair; queries are scored by -|h + R' -
    t|. The meta-gradient goes through the step. Trains the vectors of entities too, unless the
    backbone is frozen. The authors' network also has batch normalisation and dropout of 0.5 after
    each layer, which this one lacks.

    Args:
        backbone: ids of entities to their vectors, `EntityVectors`.
        inner_lr: rate of the step, beta (the authors' code: 5).
        hidden: sizes of the network's hidden layers (theirs: these for NELL-One, 250 and 100 for
            Wiki-One).
        first_order: take the step's gradient for a constant, as the authors' code does.
        shared_step: in training, divide the step's rate by the episodes of the meta-batch, as the
            authors' code does, whose support loss is a mean over them; one relation at a time is
            evaluated, at the whole rate.
        support_loss: train on L(S) at R too, beside the queries' loss at R', as the authors' code
            does: the gradients of both add up in its parameters.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: an argument out of range, or the benchmark's task is not ranking.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: NonNegative = 1.0,
        hidden: tuple[Count, ...] = (500, 200),
        first_order: bool = False,
        shared_step: bool = False,
        support_loss: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.inner_lr, self.first_order = inner_lr, first_order
        self.shared_step, self.support_loss = shared_step, support_loss
        sizes = (2 * self.features, *hidden)
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU()]
        self.relation_learner = nn.Sequential(*layers, nn.Linear(sizes[-1], self.features))

    def relation(self, pairs: Tensor, wrong: Tensor) -> Tensor:
        """Relation vectors (B, D) after the gradient step."""
        return self.learned(pairs, wrong, self.inner_lr)[0]

    def learned(self, pairs: Tensor, wrong: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        """Relation vectors (B, D) after a step at `rate`, and the support losses (B,) before it."""
        heads, tails = self.vectors(pairs).unbind(-2)  # B, K, D
        others = self.vectors(wrong)
        meta = self.relation_learner(torch.cat([heads, tails], -1)).mean(1)

        def support_loss(relation: Tensor) -> tuple[Tensor, Tensor]:
            right, against = (
                distance_score(relation[:, None], heads, one) for one in (tails, others)
            )
            losses = (self.task.margin - right + against).relu().mean(1)
            # a sum over episodes, whose gradients are then each episode's own
            return losses.sum(), losses

        gradient, losses = torch.func.grad(support_loss, has_aux=True)(meta)
        adapted: Tensor = meta - rate * (gradient.detach() if self.first_order else gradient)
        return adapted, losses

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """The relations of all episodes, then their queries."""
        if not training:
            yield from super().run(episodes, training)
            return
        yield self.training_outcome(episodes, count(episodes))

    def training_outcomes(self, batch: MetaBatch) -> Iterator[Outcome]:
        """The same of the parts of a meta-batch, whose size is that of all parts and ranks."""
        for part in batch.parts:
            yield self.training_outcome(part, batch.size * self.trainer.world_size)

    def training_outcome(self, episodes: Episode, size: int) -> Outcome:
        """The outcome of B episodes of a meta-batch of `size`."""
        rate = self.inner_lr / size if self.shared_step else self.inner_lr
        relation, losses = self.learned(*support_ids(episodes), rate)
        outcome = self.judged_by(relation, episodes)
        return outcome._replace(loss=outcome.loss + losses) if self.support_loss else outcome
