"""What ranking learners share: a relation from few pairs of entities, and candidates scored by it.

Shapes: B episodes, K support pairs, Q queries, C candidates, D values of a vector.
"""

import math
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone, features_of
from fewshot.episodes.types import Episode, Examples, Inputs, map_tensors, stack
from fewshot.learners.base import MetaLearner
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Ranking

CELLS = 2**24
"""Values of candidates in memory at once: 64 MiB in float32."""


class RankingLearner(MetaLearner):
    """Link prediction from few pairs: a relation's representation, and candidate tails' scores.

    The relations of a meta-batch are taken together, on an axis B.

    Raises:
        FewshotError: the benchmark's task is not ranking.
    """

    takes = Ranking
    task: Ranking

    def __init__(self, backbone: Backbone | nn.Module, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)

    def vectors(self, ids: Tensor) -> Tensor:
        """Vectors (..., D) of the entities of `ids` (...)."""
        return features_of(self.backbone, ids, ids.dim())

    @property
    def values(self) -> int:
        """How many values a candidate needs while it is scored."""
        return self.features

    @abstractmethod
    def relation(self, pairs: Tensor, wrong: Tensor) -> Tensor:
        """What is kept of relations (B, ...) from ids of pairs (B, K, 2) and wrong tails (B, K)."""

    def score(self, relation: Tensor, heads: Tensor, candidates: Tensor) -> Tensor:
        """Scores (B, Q, C) of ids of heads (B, Q) and candidates (B, Q, C).

        TransE's, -|h + r - t|, of relations (B, D); a subclass may have others.
        """
        return distance_score(
            relation[:, None, None], self.vectors(heads)[:, :, None], self.vectors(candidates)
        )

    def adapt(self, support: Examples) -> Tensor:
        """The relation of one support set, with an axis B = 1."""
        with torch.inference_mode(False):
            pairs, wrong = _ids(stack([map_tensors(torch.clone, support.inputs)]), "pairs", "wrong")
            return self.relation(pairs, wrong)

    def predict(self, adapted: Tensor, inputs: Inputs) -> Tensor:
        """Scores (Q, C) of the candidates of one episode's queries; -inf where there is none."""
        return self.scores(adapted, stack([inputs]))[0]

    def scores(self, relation: Tensor, inputs: Inputs) -> Tensor:
        """Scores (B, Q, C), some queries at a time; -inf where there is no candidate."""
        heads, candidates = _ids(inputs, "heads", "candidates")
        rows = max(1, CELLS // (len(heads) * candidates.shape[2] * self.values))
        parts = zip(torch.split(heads, rows, 1), torch.split(candidates, rows, 1), strict=True)
        found = torch.cat([self.score(relation, *part) for part in parts], 1)
        return found.masked_fill(candidates < 0, -math.inf)

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """The relations of all episodes, then their queries."""
        yield self.judged_by(self.relation(*support_ids(episodes)), episodes)

    def judged_by(self, relation: Tensor, episodes: Episode) -> Outcome:
        """The outcome of the queries, scored by relations (B, ...)."""
        scores, targets = self.scores(relation, episodes.query.inputs), episodes.query.targets
        judged = list(zip(scores, targets, strict=True))
        losses = torch.stack([self.task.loss(one, right) for one, right in judged])
        return Outcome(
            losses, stack([self.task.metrics(one, right) for one, right in judged]), scores
        )


def distance_score(relation: Tensor, heads: Tensor, tails: Tensor) -> Tensor:
    """TransE's score -|h + r - t| (...) of vectors (..., D)."""
    distance: Tensor = torch.linalg.vector_norm(heads + relation - tails, dim=-1)
    return -distance


def support_ids(episodes: Episode) -> tuple[Tensor, Tensor]:
    """Ids of the support pairs (B, K, 2) and their wrong tails (B, K)."""
    pairs, wrong = _ids(episodes.support.inputs, "pairs", "wrong")
    return pairs, wrong


def _ids(inputs: Inputs, *names: str) -> list[Tensor]:
    assert isinstance(inputs, dict)
    return [inputs[name] for name in names]
