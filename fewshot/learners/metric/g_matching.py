"""GMatching: pairs of entities by their neighbours, matched in several steps."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.errors import FewshotError, check_at_least
from fewshot.learners.ranking import RankingLearner


class GMatching(RankingLearner):
    """GMatching: rank tails by how a pair matches the support pairs, in steps of an LSTM. Paper: arXiv:1808.09040.

    A pair is g([f(h); f(t)]), with f the backbone, such as `NeighbourEncoder`, and g a residual network of two layers
    with LayerNorm; the support s is the mean of its pairs. A query pair q is read by an LSTM, h_k = q + LSTM(q, [h_k-1;
    s]), from zeros; its score is h_K . s, as in the authors' code: the margin of 5 is beyond the paper's cosine.

    Args:
        backbone: ids of entities to features, `NeighbourEncoder` in the paper.
        steps: K, of the matching LSTM.
        margin: by which the right tail's score is to exceed a wrong one's.
        dropout: share of g's hidden values that training drops.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: an argument out of range, or the benchmark's task is not ranking.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        steps: int = 2,
        margin: float = 5.0,
        dropout: float = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        check_at_least(1, steps=steps)
        if margin <= 0:
            raise FewshotError(f"margin is {margin}; set it > 0")
        if not 0 <= dropout < 1:
            raise FewshotError(f"dropout is {dropout}; set it in [0, 1)")
        self.task = replace(self.task, margin=margin)
        self.steps, size = steps, 2 * self.features
        self.hidden = nn.Sequential(
            nn.Linear(size, 2 * size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * size, size)
        )
        self.norm = nn.LayerNorm(size)
        self.reader = nn.LSTMCell(size, 2 * size)

    @property
    def values(self) -> int:
        """The LSTM's gates are the most that a candidate needs: 4 of twice a pair's features."""
        return 16 * self.features

    def encode(self, heads: Tensor, tails: Tensor) -> Tensor:
        """Pairs (..., 2D) of ids (...)."""
        pairs = torch.cat([self.backbone(heads), self.backbone(tails)], -1)
        encoded: Tensor = self.norm(self.hidden(pairs) + pairs)
        return encoded

    def relation(self, pairs: Tensor, wrong: Tensor) -> Tensor:
        """The supports (B, 2D)."""
        return self.encode(*pairs.unbind(-1)).mean(1)

    def score(self, relation: Tensor, heads: Tensor, candidates: Tensor) -> Tensor:
        """h_K . s of each query's head with each candidate."""
        query = self.encode(heads[..., None].expand_as(candidates), candidates)
        support = relation[:, None, None].expand_as(query)
        q, s = query.flatten(0, -2), support.flatten(0, -2)
        matched, state = q, (q.new_zeros(len(q), 2 * q.shape[1]),) * 2
        for _ in range(self.steps):
            output, cell = self.reader(q, state)
            matched = q + output[:, : q.shape[1]]
            state = torch.cat([matched, s], -1), cell
        return (matched * s).sum(-1).view(candidates.shape)
