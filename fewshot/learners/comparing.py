"""Learners that embed once and compare: a predictor from support features, logits of the query's.

Shapes: "..." before others is the axis B of stacked episodes, or nothing where one is meant.
"""

from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.learners.embedding import at_least_float32, full_precision
from fewshot.learners.outcome import Outcome
from fewshot.learners.rejecting import RejectingLearner


class ComparingLearner(RejectingLearner):
    """A learner by two functions of features: `fit` a predictor to the support, `compare` a query.

    All episodes of a meta-batch are embedded in one forward pass. A subclass writes both functions
    for one episode. Where they take leading axes by themselves, or a layer cannot be vmapped (an
    LSTM) or has to see the whole meta-batch (batch normalisation), it writes `fit_all` or
    `compare_all` too.
    """

    @property
    def head_alone(self) -> bool:
        """Whether the network stays as it is when the learner adapts."""
        return True

    @abstractmethod
    def fit(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """A predictor (a tensor, or a tree of them) from support features (S, ...) and labels (S,).

        The labels are in 0..`way`-1.
        """

    @abstractmethod
    def compare(self, predictor: Any, features: Tensor) -> Tensor:
        """Logits (n, N) of query features (n, ...)."""

    def fit_all(self, features: Tensor, targets: Tensor, way: int) -> Any:
        """Predictors with an axis B, from support features (B, S, ...) and labels (B, S)."""
        return torch.func.vmap(partial(self.fit, way=way))(features, targets)

    def compare_all(self, predictors: Any, features: Tensor) -> Tensor:
        """Logits (B, n, N) of query features (B, n, ...)."""
        logits: Tensor = torch.func.vmap(self.compare)(predictors, features)
        return logits

    def adapt(self, support: Examples) -> Any:
        """The predictor of one support set, of any way.

        Batch normalisation by the running averages.
        """
        with evaluation_mode(self):
            features = at_least_float32(self.embed(support.inputs))
            with full_precision(features):
                return self.fit(features, support.targets, int(support.targets.max()) + 1)

    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...)."""
        with evaluation_mode(self):
            features = at_least_float32(self.embed(inputs))
            with full_precision(features):
                logits: Tensor = self.none(self.compare(adapted, features))
                return logits

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Embed all in one pass, then compare query with support features, all at once."""
        support, query = self.embed_meta_batch(episodes, training)
        embedded = Episode(
            Examples(support, episodes.support.targets), Examples(query, episodes.query.targets)
        )
        with full_precision(support):
            outcome = self.judge(self.logits(embedded, training), embedded)
        yield outcome

    def logits(self, embedded: Episode, training: bool) -> Tensor:
        """Logits (B, n, N) of the query features of B episodes."""
        (support, labels, _), (query, _, _) = embedded
        assert isinstance(support, Tensor)
        assert isinstance(query, Tensor)
        predictors = self.fit_all(support, labels, int(labels.max()) + 1)
        logits: Tensor = self.none(self.compare_all(predictors, query))
        return logits

    def judge(self, outputs: Tensor, embedded: Episode) -> Outcome:
        """The outcome of logits (B, n, N) for B embedded episodes."""
        return self.judged(outputs, embedded.query.targets)
