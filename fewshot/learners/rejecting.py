"""Learners that embed, compare, and may say that a query is of no class: rule and threshold."""

from typing import Any

import torch
from torch import nn

from fewshot.backbones.base import Backbone
from fewshot.learners.embedding import EmbeddingLearner
from fewshot.learners.nota import Criterion, NoneOfTheAbove, Rule, best_threshold
from fewshot.tasks import Classification


class RejectingLearner(EmbeddingLearner):
    """A learner of logits for any number of classes, to which `none` adds the one for none of them.

    Args:
        backbone: the network from inputs to features.
        nota: where some queries are of none of an episode's classes, the rule by which they are
            told: see `NoneOfTheAbove`. Where there are none, it is not used.
        nota_criterion: what a threshold is chosen for on the validation episodes: the `accuracy`
            over all queries, or the `balanced` mean of the in-scope accuracy and the recall of the
            others.
        **kwargs: arguments of `MetaLearner`.
    """

    judges_nota = True
    takes = Classification
    task: Classification

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        nota: Rule = "minimum",
        nota_criterion: Criterion = "accuracy",
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.nota_criterion: Criterion = nota_criterion
        self.none = NoneOfTheAbove(nota, self.task.nota)

    def facts(self) -> dict[str, Any]:
        """The rule for none of the above, and its threshold."""
        return self.none.facts()

    def on_test_start(self) -> None:
        """Choose the threshold for none of the above."""
        self._choose_threshold()

    def on_predict_start(self) -> None:
        """Choose the threshold for none of the above."""
        self._choose_threshold()

    def _choose_threshold(self) -> None:
        """Choose the threshold on the benchmark's validation episodes, if needed and not known."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if datamodule is None or not self.none.lacks_threshold:
            return
        to_device = self.trainer.strategy.batch_to_device
        confidences, right, none = [], [], []
        with self.holding_features():
            for batch in datamodule.every_val_episode():
                for part in to_device(batch, self.device).parts:
                    targets, logits = part.query.targets, self.evaluate(part).outputs[..., :-1]
                    confidences.append(self.none.confidence(logits).flatten())
                    right.append((logits.argmax(-1) == targets).flatten())
                    none.append((targets == logits.shape[-1]).flatten())
        queries = torch.cat(confidences), torch.cat(right), torch.cat(none)
        self.none.threshold = best_threshold(*queries, self.nota_criterion)
