"""TransE's own ranking: what a background graph's vectors know without learning from relations."""

from typing import Any

from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.learners.ranking import RankingLearner


class TransE(RankingLearner):
    """TransE: a relation is the mean of t - h over its support pairs; nothing is trained.

    Paper: Bordes et al. 2013.

    The vector that minimises the support's squared distances |h + r - t|^2, for entities whose
    vectors are given. The baseline that a learner of relations must beat.

    Args:
        backbone: ids of entities to their vectors, `EntityVectors`.
        **kwargs: arguments of `MetaLearner`.
    """

    trains_on = "nothing"

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)

    def relation(self, pairs: Tensor, wrong: Tensor) -> Tensor:
        """Relation vectors (B, D)."""
        heads, tails = self.vectors(pairs).unbind(-2)
        relation: Tensor = (tails - heads).mean(1)
        return relation
