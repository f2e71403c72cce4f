"""BERT-PAIR: a language model reads query and support together (Gao et al., arXiv:1910.07124).

Shapes: S support examples, n queries, P = n*S pairs, N way, L places.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from fewshot.arguments import Count, Share
from fewshot.backbones.base import Backbone, dropout_layer
from fewshot.backbones.pair_encoder import PairEncoder
from fewshot.backbones.text import read_inputs
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Examples, Inputs, count, episode
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.embedding import at_least_float32
from fewshot.learners.metric.classes import class_means
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification


class BERTPair(MetaLearner):
    """BERT-PAIR: a language model reads query and support sentence as one, and says how alike.

    Paper: arXiv:1910.07124.

    Of each pair it gives two scores: that both are of one class, and that they are not. They are
    averaged over a class's support; the first are the classes' logits, the smallest of the second
    is the logit of none of the above. The loss always counts it, as the authors' code does. Takes
    episodes of any way. There are n*S pairs in an episode, each a pass through the model: an
    episode's time grows with both.

    Args:
        backbone: a `PairEncoder`.
        dropout: rate at the features in training.
        pairs_per_chunk: pairs of a forward pass. Of an episode with more, training forgets the
            activations and computes them again in the backward pass, so that its memory is that of
            one chunk.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: another backbone, another task, or an argument out of range.
    """

    judges_nota = True
    takes = Classification
    usual_backbone: ClassVar[Mapping[str, Any] | None] = {"class_path": "fewshot.PairEncoder"}
    task: Classification

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        dropout: Share = 0.1,
        pairs_per_chunk: Count = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if not isinstance(self.backbone, PairEncoder):
            raise FewshotError(
                "BERTPair has a language model read two texts as one: it needs a benchmark of"
                " texts, such as FewRelDataModule, with data.tokenizer set to the model, and the"
                f" backbone PairEncoder, not {self.task.kind} and {type(self.backbone).__name__}"
            )
        self.pairs_per_chunk = pairs_per_chunk
        self.dropout, self.score = dropout_layer(dropout), nn.Linear(self.backbone.out_features, 2)

    def adapt(self, support: Examples) -> tuple[Examples, int]:
        """The support itself, and N: all else is done when a query is there."""
        return support, int(support.targets.max()) + 1

    def predict(self, adapted: tuple[Examples, int], inputs: Inputs) -> Tensor:
        """Logits (n, N), or with none of the above (n, N + 1), of inputs (n, ...)."""
        with evaluation_mode(self):
            return self._asked_for(self.logits(*adapted, inputs))

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Judge the queries of one episode after another."""
        for i in range(count(episodes)):
            one = episode(episodes, i)
            logits = self.logits(*self.adapt(one.support), one.query.inputs)
            loss, outputs = self.task.loss(logits, one.query.targets), self._asked_for(logits)
            metrics = self.task.metrics(outputs, one.query.targets)
            yield Outcome(
                loss[None], {name: value[None] for name, value in metrics.items()}, outputs[None]
            )

    def logits(self, support: Examples, way: int, inputs: Inputs) -> Tensor:
        """Logits (n, N + 1) of inputs (n, ...), the last for none of the above."""
        each = at_least_float32(self.scores(support.inputs, inputs))
        scores = class_means(each.transpose(0, 1), support.targets, way)  # (N, n, 2)
        same, different = scores.transpose(0, 1).unbind(-1)
        return torch.cat([same, different.amin(-1, keepdim=True)], -1)

    def scores(self, support: Inputs, query: Inputs) -> Tensor:
        """How much each of n queries and S support texts are of one class, or not: (n, S, 2)."""
        if torch.compiler.is_exporting():
            raise FewshotError(
                "BERTPair cannot be exported: its pairs differ in length; use `fewshot predict`"
            )
        (_, lengths), (_, query_lengths) = read_inputs(support), read_inputs(query)
        size, number = len(lengths), len(query_lengths)
        first = torch.arange(size, device=lengths.device).repeat(number)
        second = torch.arange(number, device=lengths.device).repeat_interleave(size)
        # pairs of a chunk are of about one length
        order = (lengths[first] + query_lengths[second]).argsort()
        chunks = torch.split(order, self.pairs_per_chunk)
        forget = torch.is_grad_enabled() and len(chunks) > 1
        parts = []
        for rows in chunks:
            pairs = support, query, first[rows], second[rows]
            parts.append(
                checkpoint(self._score, *pairs, use_reentrant=False)
                if forget
                else self._score(*pairs)
            )
        return torch.cat(parts)[order.argsort()].view(number, size, 2)

    def _score(self, support: Inputs, query: Inputs, first: Tensor, second: Tensor) -> Tensor:
        """The scores (P, 2) of pairs: rows (P,) of the support and of the query."""
        (tokens, lengths), (others, other_lengths) = read_inputs(support), read_inputs(query)
        pairs = {"tokens": tokens[first], "lengths": lengths[first]}
        pairs |= {"other_tokens": others[second], "other_lengths": other_lengths[second]}
        scores: Tensor = self.score(self.dropout(self.backbone(pairs)))
        return scores

    def _asked_for(self, logits: Tensor) -> Tensor:
        """The logits (n, N + 1), or where the task has no none of the above (n, N)."""
        return logits if self.task.nota else logits[..., :-1]
