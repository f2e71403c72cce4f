"""The frequency baseline of link prediction."""

from typing import Any

import torch
from torch import Tensor

from fewshot.arguments import Natural
from fewshot.backbones.pixels import Pixels
from fewshot.learners.ranking import RankingLearner


class TailFrequency(RankingLearner):
    """TailFrequency: rank tails by how often they are one, in the support, then in the background.

    Paper: none.

    The baseline of whoever does not look at a query's head; nothing is trained.

    Args:
        tail_counts: how often each entity is a tail in the background graph; from the benchmark.
        **kwargs: arguments of `MetaLearner`.
    """

    fixed_arguments = ("backbone",)
    trains_on = "nothing"

    def __init__(self, tail_counts: list[Natural], **kwargs: Any) -> None:
        super().__init__(Pixels(1), **kwargs)
        counts = torch.tensor(tail_counts, dtype=torch.float64)
        self.counts: Tensor
        # below 1, so that one more in the support counts more than any in the background
        self.register_buffer("counts", counts / (counts.max() + 1))

    def relation(self, pairs: Tensor, wrong: Tensor) -> Tensor:
        """The support's tails (B, K)."""
        return pairs[..., 1]

    def score(self, relation: Tensor, heads: Tensor, candidates: Tensor) -> Tensor:
        """Times among the support's tails, plus times in the background as a share.

        The share is of the most frequent entity's times.
        """
        in_support = (candidates[..., None] == relation[:, None, None]).sum(-1)
        return in_support + self.counts[candidates.clamp(min=0)]
