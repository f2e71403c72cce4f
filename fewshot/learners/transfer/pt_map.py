"""PT-MAP (Hu et al., arXiv:2006.03806)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Natural, Part, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import Labelled, TransductiveHead, squared_distances

TOLERANCE, MOST = 1e-6, 1000
"""Of Sinkhorn's iterations: the change of a row's sum at which they end, and how many at most."""


def power(features: Tensor, exponent: float) -> Tensor:
    """(max(x, 0) + 1e-6)^exponent: features (..., D) nearer to a normal distribution."""
    return (features.relu() + 1e-6) ** exponent


def balanced_assignments(costs: Tensor, sharpness: float) -> Tensor:
    """The plan (..., n, N) of rows of sum 1 and columns of sum n / N, nearest to exp(-sharpness c).

    Sinkhorn's iterations, each episode until it stands still.

    Args:
        costs: c, (..., n, N).
        sharpness: lambda.
    """
    n, way = costs.shape[-2:]
    # a row's factor is nothing to the plan, and keeps one entry of it at 1
    plan = (-sharpness * (costs - costs.amin(-1, keepdim=True))).exp()
    going = torch.ones_like(plan[..., :1, :1], dtype=torch.bool)
    for _ in range(MOST):
        rows = plan.sum(-1, keepdim=True)
        new = plan / (rows + 1e-10)
        new = new * (n / way) / (new.sum(-2, keepdim=True) + 1e-10)
        plan = torch.where(going, new, plan)
        change = (rows - plan.sum(-1, keepdim=True)).abs().amax((-2, -1), keepdim=True)
        going = going & (change >= TOLERANCE)
        if not going.any():
            break
    return plan


class PTMAP(TransductiveHead):
    """PT-MAP: power-transformed features, and optimal transport of queries to class centres.

    **Assumes as many queries of each class**: where they are not, other methods are better. The
    same as easyfsl's without `normalise` and `center_episode`, which the authors' code does and
    easyfsl does not. Takes features that are not negative (behind a ReLU). Paper: arXiv:2006.03806.

    Args:
        backbone: the network from inputs to features.
        exponent: of the power transform; 0.5 in the paper.
        normalise: bring the transformed features to unit length.
        center_episode: then take off the mean of support and queries of the episode, each its own,
            and bring them to unit length again.
        steps: of the centres.
        step_size: share of the way to the new centres; in the paper 0.2, at 1 shot 0.4.
        sharpness: lambda of the transport.
        **kwargs: arguments of `FeatureHead`, without `transform`.
    """

    fixed_arguments = ("transform",)

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        exponent: Positive = 0.5,
        normalise: bool = True,
        center_episode: bool = True,
        steps: Natural = 20,
        step_size: Part = 0.2,
        sharpness: Positive = 10.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, transform="none", **kwargs)
        self.exponent, self.normalise, self.center_episode = exponent, normalise, center_episode
        self.steps, self.step_size, self.sharpness = steps, step_size, sharpness

    def answer(self, support: Labelled, queries: Tensor) -> Tensor:
        """Logits (..., n, N) of query features (..., n, D)."""
        support = support._replace(features=self._prepared(support.features))
        queries = self._prepared(queries)
        centres, together = support.means, torch.cat([support.features, queries], -2)
        for _ in range(self.steps):
            shares = torch.cat([support.labels, self._plan(queries, centres)], -2)
            new = (shares.mT @ together) / shares.sum(-2)[..., None]
            centres = centres + self.step_size * (new - centres)
        return (self._plan(queries, centres) + 1e-12).log()

    def _plan(self, queries: Tensor, centres: Tensor) -> Tensor:
        return balanced_assignments(squared_distances(queries, centres), self.sharpness)

    def _prepared(self, features: Tensor) -> Tensor:
        features = power(features, self.exponent)
        if self.normalise:
            features = F.normalize(features, dim=-1)
        if self.center_episode:
            features = F.normalize(features - features.mean(-2, keepdim=True), dim=-1)
        return features
