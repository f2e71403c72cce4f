"""GMatching: pairs of entities by their neighbours, matched in several steps."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, Positive, Share
from fewshot.backbones.base import Backbone
from fewshot.learners.ranking import RankingLearner


class GMatching(RankingLearner):
    """GMatching: rank tails by how a pair matches the support pairs, in steps of an LSTM.

    Paper: arXiv:1808.09040.

    A pair is g([f(h); f(t)]), with f the backbone, such as `NeighbourEncoder`, and g a residual
    network of two layers with LayerNorm; the support s is the mean of its pairs. A query pair q is
    read by an LSTM, h_k = q + LSTM(q, [h_k-1; s]), from zeros; its score is h_K . s, as in the
    authors' code: the margin of 5 is beyond the paper's cosine. Theirs has an LSTM twice as wide,
    of which only this half is ever read. What it says of q and s is the same at each step. Theirs
    also sees an entity's degree: the encoder's `places`. Its LayerNorm divides by the unbiased
    deviation plus 1e-3.

    Args:
        backbone: ids of entities to features, `NeighbourEncoder` in the paper.
        steps: K, of the matching LSTM (the authors' code: 2).
        margin: by which the right tail's score is to exceed a wrong one's (theirs: 5).
        dropout: share of g's hidden values that training drops (theirs: of what g adds to the
            pair, and half of the neighbours' vectors).
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: an argument out of range, or the benchmark's task is not ranking.
    """

    usual_backbone: ClassVar[Mapping[str, Any] | None] = {"class_path": "fewshot.NeighbourEncoder"}

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        steps: Count = 2,
        margin: Positive = 5.0,
        dropout: Share = 0.2,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.task = replace(self.task, margin=margin)
        self.steps, size = steps, 2 * self.features
        self.hidden = nn.Sequential(
            nn.Linear(size, 2 * size), nn.ReLU(), nn.Dropout(dropout), nn.Linear(2 * size, size)
        )
        self.norm = nn.LayerNorm(size)
        # the LSTM's gates; the first step has no h and s before it
        self.of_query = nn.Linear(size, 4 * size)
        self.of_state = nn.ModuleList(
            nn.Linear(size, 4 * size, bias=False) for _ in ("h", "s") if steps > 1
        )
        for weight in (*self.of_query.parameters(), *self.of_state.parameters()):
            # torch's, of the authors' width
            nn.init.uniform_(weight, -((2 * size) ** -0.5), (2 * size) ** -0.5)

    @property
    def values(self) -> int:
        """The LSTM's gates are the most that a candidate needs: 4 of a pair's features."""
        return 8 * self.features

    def encode(self, heads: Tensor, tails: Tensor) -> Tensor:
        """Pairs (..., 2D) of ids (...)."""
        pairs = torch.cat([self.vectors(heads), self.vectors(tails)], -1)
        encoded: Tensor = self.norm(self.hidden(pairs) + pairs)
        return encoded

    def relation(self, pairs: Tensor, wrong: Tensor) -> Tensor:
        """The supports (B, 2D)."""
        return self.encode(*pairs.unbind(-1)).mean(1)

    def score(self, relation: Tensor, heads: Tensor, candidates: Tensor) -> Tensor:
        """h_K . s of each query's head with each candidate."""
        query = self.encode(heads[..., None].expand_as(candidates), candidates)
        support = relation[:, None, None]
        always = self.of_query(query)
        into, _, new, out = always.chunk(4, -1)
        cell = into.sigmoid() * new.tanh()
        matched = query + out.sigmoid() * cell.tanh()
        for _ in range(self.steps - 1):
            of_h, of_s = self.of_state
            into, forget, new, out = (always + of_h(matched) + of_s(support)).chunk(4, -1)
            cell = forget.sigmoid() * cell + into.sigmoid() * new.tanh()
            matched = query + out.sigmoid() * cell.tanh()
        scores: Tensor = (matched * support).sum(-1)
        return scores
