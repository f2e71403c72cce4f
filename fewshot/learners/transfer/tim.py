"""Transductive information maximization (TIM; Boudiaf et al., arXiv:2008.11297)."""

from typing import Any

from torch import Tensor, nn

from fewshot.arguments import Natural, NonNegative, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import Labelled, TransductiveHead, cosines
from fewshot.learners.transfer.prototype_descent import entropy, support_loss, tuned


class TIM(TransductiveHead):
    """TIM: prototypes that tell much about the queries' classes, and the support's classes.

    Adam on the support's cross-entropy minus the mutual information of queries and classes: the
    entropy of the mean prediction, less the mean entropy of the predictions. The first term assumes
    that queries are balanced over the classes; lower `marginal_weight` where they are not. The
    paper's TIM-GD, with cosines in place of squared distances of features of unit length, which
    differ where prototypes change their length: easyfsl's form, and its number of steps. Paper:
    arXiv:2008.11297.

    Args:
        backbone: the network from inputs to features.
        steps: of Adam; 1000 in the paper.
        lr: of Adam.
        support_weight: of the support's cross-entropy.
        marginal_weight: of the entropy of the mean prediction.
        conditional_weight: of the mean entropy.
        temperature: the cosines are multiplied by it to be logits.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        steps: Natural = 50,
        lr: Positive = 1e-4,
        support_weight: NonNegative = 1.0,
        marginal_weight: NonNegative = 1.0,
        conditional_weight: NonNegative = 0.1,
        temperature: Positive = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.steps, self.lr, self.temperature = steps, lr, temperature
        self.support_weight, self.marginal_weight = support_weight, marginal_weight
        self.conditional_weight = conditional_weight

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        features, labels, start = (part.clone() for part in (*support, support.means))
        queries = queries.clone()

        def losses(prototypes: Tensor) -> Tensor:
            of_support = support_loss(self._logits(features, prototypes), labels)
            p = self._logits(queries, prototypes).softmax(-1)
            information = self.marginal_weight * entropy(p.mean(-2))
            information = information - self.conditional_weight * entropy(p).mean(-1)
            return self.support_weight * of_support - information

        return self._logits(queries, tuned(start, losses, self.steps, self.lr))

    def _logits(self, features: Tensor, prototypes: Tensor) -> Tensor:
        return self.temperature * cosines(features, prototypes)
