"""Ridge regression as a differentiable head (Bertinetto et al., arXiv:1805.08136)."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.errors import FewshotError
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import membership


def ridge_regression(features: Tensor, targets: Tensor, penalty: Tensor) -> Tensor:
    """W (D, N) minimising ||X W - Y||^2 + penalty ||W||^2, for features X (S, D), targets Y (S, N).

    Of the two equal closed forms, the one that solves the smaller system: S x S (Woodbury) or D x
    D.
    """
    size, width = features.shape
    woodbury = size < width
    gram = features @ features.T if woodbury else features.T @ features
    system = gram + penalty * torch.eye(len(gram), dtype=features.dtype, device=features.device)
    solved: Tensor = torch.linalg.solve(system, targets if woodbury else features.T @ targets)
    return features.T @ solved if woodbury else solved


class R2D2(MetricLearner):
    """R2D2: ridge regression of one-hot labels on features, in closed form, trained through.

    Paper: arXiv:1805.08136.

    Takes episodes of any way. The penalty, and the scale and bias that make logits of the
    regression's outputs, are learned with the network.

    Args:
        backbone: the embedding network.
        penalty: lambda of the ridge regression, where its learning starts (of its logarithm, so
            that it stays positive).
        scale: where the scale of the outputs starts. The regression's outputs lie about in [0, 1],
            which is too little for a softmax.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: `penalty` is not positive.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        penalty: float = 1.0,
        scale: float = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if not penalty > 0:
            raise FewshotError(
                f"penalty is {penalty}; ridge regression needs a positive one, such as 1.0"
            )
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log())
        self.scale = nn.Parameter(torch.tensor(scale))
        self.bias = nn.Parameter(torch.tensor(0.0))

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """The regression's weights (D, N) on support features (S, D)."""
        return ridge_regression(
            features, membership(targets, way, features.dtype), self.log_penalty.exp()
        )

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Logits (n, N) of query features (n, D)."""
        return self.scale * (features @ predictor) + self.bias
