"""Transductive fine-tuning of prototypes (Dhillon et al., arXiv:1909.02729)."""

from typing import Any

from torch import Tensor, nn

from fewshot.arguments import Natural, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import Labelled, TransductiveHead, squared_distances
from fewshot.learners.transfer.prototype_descent import entropy, support_loss, tuned


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
        features, labels, start = (part.clone() for part in (*support, support.means))
        queries = queries.clone()

        def losses(prototypes: Tensor) -> Tensor:
            of_support = support_loss(self._logits(features, prototypes), labels)
            sure = entropy(self._logits(queries, prototypes).softmax(-1)).mean(-1)
            return of_support + sure

        return self._logits(queries, tuned(start, losses, self.steps, self.lr))

    def _logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        # the root has no derivative where an example is its class's mean, as at 1 shot
        return -self.temperature * (squared_distances(features, prototypes) + 1e-12).sqrt()
