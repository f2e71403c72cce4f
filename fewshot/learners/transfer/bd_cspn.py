"""BD-CSPN (Liu et al., arXiv:1911.10713)."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import Labelled, TransductiveHead, cosines


def shifted(support: Labelled, queries: Tensor) -> Tensor:
    """Queries (..., n, D) moved so that their mean is the support's."""
    return queries + support.features.mean(-2, keepdim=True) - queries.mean(-2, keepdim=True)


def rectified(support: Labelled, queries: Tensor, scale: float) -> Tensor:
    """Prototypes (..., N, D) of the support and of the queries (..., n, D) that look like a class.

    Each example counts for its class, a query for the one that it is nearest to, by
    exp(scale cos(x, class mean)).
    """
    guessed = cosines(queries, support.means)
    own = cosines(support.features, support.means)
    one_hot = F.one_hot(guessed.argmax(-1), guessed.shape[-1]).to(queries.dtype)
    # a common factor of a class's weights, so that no exponential grows beyond measure
    top = scale * own.amax(-2, keepdim=True).maximum(guessed.amax(-2, keepdim=True))
    of_support = support.labels * (scale * own - top).exp()
    of_queries = one_hot * (scale * guessed - top).exp()
    total = of_support.sum(-2) + of_queries.sum(-2)
    summed = of_support.mT @ support.features + of_queries.mT @ queries
    return summed / total[..., None]


class BDCSPN(TransductiveHead):
    """BD-CSPN: class means corrected by the queries that are nearest to them, then cosines.

    Queries are moved to the support's mean; then each counts for the class that it is nearest to.
    Makes no assumption of how many queries a class has, but for the move. Paper: arXiv:1911.10713.

    With scale 1 and `shift_queries` off the same as easyfsl's, which weighs examples by exp(cos).

    Args:
        backbone: the network from inputs to features.
        scale: sharpness of the weights, the paper's epsilon.
        temperature: the cosines are multiplied by it to be logits.
        shift_queries: compare the moved queries with the classes, as in the paper.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        scale: Positive = 10.0,
        temperature: Positive = 10.0,
        shift_queries: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.scale, self.temperature, self.shift_queries = scale, temperature, shift_queries

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        moved = shifted(support, queries)
        prototypes = rectified(support, moved, self.scale)
        judged = moved if self.shift_queries else queries
        return self.temperature * cosines(judged, prototypes)
