"""Ridge regression as a differentiable head (Bertinetto et al., arXiv:1805.08136)."""

from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.checkpoint_checks import forget_parameter
from fewshot.learners.metric.base import MetricLearner
from fewshot.learners.metric.classes import membership


def ridge_regression(features: Tensor, targets: Tensor, penalty: Tensor | float) -> Tensor:
    """W (..., D, N) minimising ||X W - Y||^2 + penalty ||W||^2, X (..., S, D), Y (..., S, N).

    Of the two equal closed forms, the one that solves the smaller system: S x S (Woodbury) or D x
    D.
    """
    size, width = features.shape[-2:]
    woodbury = size < width
    gram = features @ features.mT if woodbury else features.mT @ features
    one = torch.eye(gram.shape[-1], dtype=features.dtype, device=features.device)
    system = gram + penalty * one
    solved: Tensor = torch.linalg.solve(system, targets if woodbury else features.mT @ targets)
    return features.mT @ solved if woodbury else solved


class R2D2(MetricLearner):
    """R2D2: ridge regression of one-hot labels on features, in closed form, trained through.

    Paper: arXiv:1805.08136.

    Takes episodes of any way. The penalty, and the scale that makes logits of the regression's
    outputs, are learned with the network. The paper's bias of the logits is left out: one number
    added to all classes is nothing to a softmax, and cannot learn. The authors' code sets
    `intercept` and `mean_error`, and its released settings keep a penalty of 50 as it is.

    Args:
        backbone: the embedding network.
        penalty: lambda of the ridge regression, where its learning starts (of its logarithm, so
            that it stays positive).
        scale: where the scale of the outputs starts. The regression's outputs lie about in [0, 1],
            which is too little for a softmax (the authors' code: 10 on Omniglot and CIFAR-FS, 1e-4
            on mini-ImageNet).
        intercept: give the regression an intercept of each class, penalised like its weights: a
            column of ones beside the features.
        mean_error: hold the penalty against the mean of the squared errors over the support's S
            examples, where it is held against their sum: as if features and labels were divided by
            the root of S. What a penalty means then does not depend on S.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: `penalty` is not positive.
    """

    proven_in_bfloat16 = True
    begins_at = ("penalty", "scale")

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        penalty: Positive = 1.0,
        scale: Positive = 10.0,
        intercept: bool = False,
        mean_error: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.log_penalty = nn.Parameter(torch.tensor(penalty).log())
        self.scale = nn.Parameter(torch.tensor(scale))
        self.intercept, self.mean_error = intercept, mean_error

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Tensor:
        """The regression's weights (D, N), or (D + 1, N), on support features (S, D)."""
        penalty = self.log_penalty.exp()
        return ridge_regression(
            self.design(features),
            membership(targets, way, features.dtype),
            penalty * len(features) if self.mean_error else penalty,
        )

    def compare(self, predictor: Tensor, features: Tensor) -> Tensor:
        """Logits (n, N) of query features (n, D)."""
        return self.scale * (self.design(features) @ predictor)

    def design(self, features: Tensor) -> Tensor:
        """What the regression reads of features (n, D): with an intercept (n, D + 1)."""
        if not self.intercept:
            return features
        return torch.cat([features, torch.ones_like(features[:, :1])], 1)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take checkpoints of before, whose bias of all logits was seen by nothing but `learned`.

        That rule for none of the above takes it into its offset.
        """
        if (bias := forget_parameter(checkpoint, "bias", self)) is not None and self.none.active:
            held = checkpoint["state_dict"]
            if "none.offset" in held:
                held["none.offset"] = held["none.offset"] + (held["none.slope"] - 1) * bias
        super().on_load_checkpoint(checkpoint)
