"""PT-MAP (Hu et al., arXiv:2006.03806)."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Natural, Part, Positive
from fewshot.backbones.base import Backbone
from fewshot.learners.transfer.feature_head import Labelled, TransductiveHead

TOLERANCE, MOST = 1e-6, 1000
"""Of Sinkhorn's iterations: the change of a row's sum at which they end, and how many at most."""

AT_ONCE = 20
"""Iterations between two looks at which episodes are done."""


def power(features: Tensor, exponent: float) -> Tensor:
    """(max(x, 0) + 1e-6)^exponent: features (..., D) nearer to a normal distribution."""
    return (features.relu() + 1e-6) ** exponent


def balanced_assignments(costs: Tensor, sharpness: float) -> Tensor:
    """The plan (..., n, N) of rows of sum 1 and columns of sum n / N, nearest to exp(-sharpness c).

    Sinkhorn's iterations, each episode until it stands still. Of the plan only its factors are
    moved, a number a row and one a column.

    Args:
        costs: c, (..., n, N).
        sharpness: lambda.
    """
    n, way = costs.shape[-2:]
    # episodes side by side come last: all have their sums at once
    episodes, dtype = costs.shape[:-2], costs.dtype
    costs = costs.reshape(-1, n, way).permute(2, 1, 0).contiguous()
    if costs.device.type != "mps":  # which has no float64
        costs = costs.double()  # float32 knows a sum to 1e-7: too few digits to end by
    # a row's factor is nothing to the plan; so each row and column of the kernel has an entry 1
    costs = costs - costs.amin(0)
    least = costs.amin(1, keepdim=True)
    kernel, columns = (-sharpness * (costs - least)).exp(), (-sharpness * least).exp()
    sums = [torch.ones_like(costs[0]), (kernel * columns).sum(0)]  # of rows, before their factors
    rows, moved = torch.ones_like(sums[0]), kernel
    going = torch.arange(costs.shape[-1], device=costs.device)
    for _ in range(0, MOST, AT_ONCE):
        sums, tried = sums[-2:], []
        for _ in range(AT_ONCE):
            tried.append(n / way / (moved * sums[-1].reciprocal()).sum(1, keepdim=True))
            sums.append((moved * tried[-1]).sum(0))
        still, which = first_still(torch.stack(sums))
        rows[:, going] = torch.stack(sums[1:-1]).take_along_dim(which, 0)[0]
        columns[..., going] = torch.stack(tried).take_along_dim(which[:, None], 0)[0]
        if still.any():  # the others go on alone
            rest = (~still).nonzero()[:, 0]
            going, moved = going[rest], moved.index_select(-1, rest)
            sums = [part.index_select(-1, rest) for part in sums[-2:]]
        if not len(going):
            break
    plan = (kernel * columns / rows).to(dtype)
    return plan.permute(2, 1, 0).reshape(*episodes, n, way)


def first_still(sums: Tensor) -> tuple[Tensor, Tensor]:
    """Whether episodes come to stand still (B,), at which of T iterations or the last (1, 1, B).

    Args:
        sums: of the kernel's rows times the columns' factors, (T + 2, n, B). A plan's rows are
            divided by the sums before its own.
    """
    of_plans = sums[1:] / sums[:-1]
    still = (of_plans[1:] - of_plans[:-1]).abs().amax(1, keepdim=True) < TOLERANCE
    last = torch.zeros_like(still)
    last[-1] = True
    return still.any(0)[0], (still | last).to(torch.uint8).argmax(0, keepdim=True)


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
        known, way = support.labels.shape[-2:]
        parts = self._prepared(support.features), self._prepared(queries)
        together = torch.cat(parts, -2)
        # of few examples the products are quicker to use than the features
        few = together.shape[-2] <= together.shape[-1]
        products = together @ together.mT if few else None

        def plan(centres: Tensor) -> Tensor:
            """That of queries to centres (..., N, S + n), each so much of every example."""
            across = centres @ together @ together.mT if products is None else centres @ products
            lengths = (across * centres).sum(-1)[..., None, :]
            costs = squares + lengths - 2 * across[..., known:].mT
            return balanced_assignments(costs.clamp(min=0), self.sharpness)

        squares = parts[1].square().sum(-1, keepdim=True)
        shares = torch.cat([support.labels, queries.new_zeros(*queries.shape[:-1], way)], -2).mT
        centres = shares / shares.sum(-1, keepdim=True)
        for _ in range(self.steps):
            shares = torch.cat([support.labels, plan(centres)], -2).mT
            new = shares / shares.sum(-1, keepdim=True)
            centres = centres + self.step_size * (new - centres)
        return (plan(centres) + 1e-12).log()

    def _prepared(self, features: Tensor) -> Tensor:
        features = power(features, self.exponent)
        if self.normalise:
            features = F.normalize(features, dim=-1)
        if self.center_episode:
            features = F.normalize(features - features.mean(-2, keepdim=True), dim=-1)
        return features
