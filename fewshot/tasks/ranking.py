"""Ranking: which of many candidates is the right one."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from fewshot.arguments import Positive
from fewshot.episodes.types import Examples
from fewshot.tasks.base import Task
from fewshot.tasks.estimates import Estimate, estimate


@dataclass(frozen=True)
class Ranking(Task):
    """Ranking of candidates: scores (n, candidates) against the column (n,) of the right one.

    A candidate of score -inf is none: it pads a row, or is another right answer that the protocol
    removes. The loss is the margin loss mean(max(0, margin - right + other)) over all other
    candidates; the metrics are means over the queries, and an episode counts by its queries, so
    that a mean over episodes is the literature's over all queries.

    Args:
        margin: by which the right candidate's score is to exceed another's.
    """

    kind: ClassVar[str] = "ranking"
    such_as: ClassVar[str] = "WikiOneDataModule"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("mrr", "max")
    prediction_columns: ClassVar[tuple[str, ...]] = ("target", "predicted", "rank")
    hits: ClassVar[tuple[int, ...]] = (1, 5, 10)

    margin: Positive = 1.0

    @property
    def output_size(self) -> int:
        """One score a candidate."""
        return 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean margin loss over the pairs of the right and another candidate."""
        right = outputs.gather(-1, targets[..., None])
        others = (outputs != -math.inf).scatter(-1, targets[..., None], False)
        # where() twice: an excluded pair's infinity must not reach the gradient, not even times 0
        gaps = self.margin - right + torch.where(others, outputs, 0.0)
        return torch.where(others, gaps.relu(), 0.0).sum() / others.sum().clamp(min=1)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """Mean reciprocal rank, and the share of queries among the first 1, 5 and 10."""
        ranks = mean_ranks(outputs, targets)
        hits = {f"hits{k}": (ranks <= k).float().mean() for k in self.hits}
        return {"mrr": ranks.reciprocal().mean(), **hits}

    def predictions(self, outputs: Tensor, targets: Tensor) -> list[Sequence[Any] | Tensor]:
        """The right candidate and the first one, by their columns, and the rank of the right."""
        ranks = mean_ranks(outputs, targets)
        return [targets.tolist(), outputs.argmax(-1).tolist(), ranks.tolist()]

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """``query_count``: how many queries an episode has."""
        return {
            "query_count": query.targets.new_full((len(query.targets),), query.targets.shape[1])
        }

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """The means over the queries of all episodes."""
        values = {name: column for name, column in columns.items() if name != "query_count"}
        return {name: estimate(column, columns["query_count"]) for name, column in values.items()}


def mean_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Ranks (n,) from 1 of candidates `targets` (n,) by `scores` (n, candidates), ties at the mean.

    Candidates of score -inf do not count. A NaN proves nothing: the right candidate's is last,
    another's comes first.

    >>> mean_ranks(torch.tensor([[2.0, 3.0, 2.0, 2.0, 1.0]]), torch.tensor([0]))
    tensor([3.])
    """
    right = scores.gather(-1, targets[..., None])
    others = (scores != -math.inf).scatter(-1, targets[..., None], False)
    better = others & ~(scores <= right)
    return 1.0 + better.sum(-1) + 0.5 * (others & (scores == right)).sum(-1)
