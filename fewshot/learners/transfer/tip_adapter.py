"""Tip-Adapter's cache of support examples (Zhang et al., arXiv:2207.09519)."""

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import NonNegative, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import FeatureHead, Labelled


class TipAdapter(FeatureHead):
    """TipAdapter: a cache of support examples, each voting by its closeness.

    Logits are prior + alpha exp(-beta (1 - f K^T)) L, with the query's feature f, the support's
    features K, of unit length, and their one-hot labels L. The paper's prior is CLIP's: 100 times
    the cosine with each class's text. A benchmark here has no texts of classes: the prior is the
    same of the class means, or none. The trained variant, Tip-Adapter-F, is left out. Paper:
    arXiv:2207.09519.

    Args:
        backbone: the network from inputs to features.
        alpha: weight of the cache.
        beta: sharpness of its votes.
        prior: `means`, prior_scale times the cosine with the class means, or `none`.
        prior_scale: 100 in the paper.
        **kwargs: arguments of `FeatureHead`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        alpha: NonNegative = 1.0,
        beta: Positive = 5.5,
        prior: Literal["means", "none"] = "means",
        prior_scale: Positive = 100.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.alpha, self.beta = alpha, beta
        self.prior, self.prior_scale = prior, prior_scale

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of transformed query features (..., n, D)."""
        f, keys = F.normalize(queries, dim=-1), F.normalize(support.features, dim=-1)
        logits = self.alpha * (-self.beta * (1 - f @ keys.mT)).exp() @ support.labels
        if self.prior == "means":
            logits = logits + self.prior_scale * f @ F.normalize(support.means, dim=-1).mT
        return logits
