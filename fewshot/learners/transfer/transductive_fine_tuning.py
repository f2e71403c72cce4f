"""Transductive fine-tuning of prototypes (Dhillon et al., arXiv:1909.02729)."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Natural, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import Labelled, TransductiveHead, squared_distances
from fewshot.learners.transfer.prototype_descent import (
    entropy_slopes,
    few_at_a_time,
    slopes_by_logits,
    tuned,
)


class TransductiveFineTuning(TransductiveHead):
    """TransductiveFineTuning: prototypes that are right on the support and sure on the queries.

    Adam on the support's cross-entropy plus the mean entropy of the queries' predictions, by minus
    the distance to the prototypes. Makes no assumption of how many queries a class has. The paper
    tunes the whole network; as in easyfsl, here the prototypes alone change. Paper:
    arXiv:1909.02729.

    Args:
        backbone: the network from inputs to features.
        steps: of Adam.
        lr: of Adam; the paper's 5e-5 is for a whole network.
        temperature: the distances are multiplied by it to be logits; with large ones, or large
            rates, the entropy drives all queries into few classes.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        steps: Natural = 25,
        lr: Positive = 5e-4,
        temperature: Positive = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.steps, self.lr, self.temperature = steps, lr, temperature

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        return few_at_a_time(self._descended, support, queries)

    def _descended(self, support: Labelled, queries: Tensor) -> Tensor:
        together = torch.cat([support.features, queries], -2)
        lengths = together.square().sum(-1)

        def gradient(prototypes: Tensor) -> Tensor:
            squares = squared_distances(prototypes, together, lengths)  # (..., N, S + n)
            distances = rooted(squares)
            p = (-self.temperature * distances).softmax(-2)
            slopes = slopes_by_logits(p, support.labels, 1.0, entropy_slopes)
            pulls = torch.where(squares > 0, -self.temperature * slopes / distances, 0)
            return pulls.sum(-1)[..., None] * prototypes - pulls @ together

        prototypes = tuned(support.means, gradient, self.steps, self.lr)
        return -self.temperature * rooted(squared_distances(queries, prototypes))


def rooted(squares: Tensor) -> Tensor:
    """Roots that have a derivative at 0, where an example is its class's mean, as at 1 shot."""
    return (squares + 1e-12).sqrt()
