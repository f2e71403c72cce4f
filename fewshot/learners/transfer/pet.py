"""Pattern-exploiting training (Schick and Schuetze, arXiv:2001.07676.

Several masks: arXiv:2009.07118).

Shapes: n examples, b of a batch, V views (the plain text, then a pattern each), C candidates, L
places, M pieces of the longest candidate.
"""

from copy import deepcopy
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Count, Positive
from fewshot.backbones.base import Backbone
from fewshot.backbones.masked_language_model import MaskedLanguageModel
from fewshot.episodes.types import Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.transfer.language import (
    NO_CANDIDATE,
    LanguageLearner,
    TextClassifier,
    picked,
    sequences,
    views,
)


class Ensemble(NamedTuple):
    """Trained language models, as many a pattern, pattern by pattern; weights, which sum to 1."""

    models: list[MaskedLanguageModel]
    weights: Tensor


class PET(LanguageLearner):
    """PET: a masked language model a pattern, whose ensemble teaches a classifier.

    Paper: arXiv:2001.07676.

    A pattern makes a cloze of a text, a verbaliser a word of each label; the model is trained to
    fill in the right one. The ensemble's scores, weighted and softened, label the unlabelled
    examples, from which a classifier of the plain texts learns (`distil`); without it the ensemble
    itself predicts. Candidates of several pieces are trained by the hinge loss on one pass and
    scored piece by piece, the surest first (arXiv:2009.07118). The auxiliary language modelling
    loss and the repeated generations of iPET are left out.

    Args:
        backbone: the masked language model.
        distil: train the classifier; needs unlabelled examples.
        distil_steps: its gradient steps.
        temperature: softens the ensemble's scores for it.
        soften_classifier: soften the classifier's own scores too while it learns, and multiply its
            loss by the temperature's square, as the authors' code does.
        models_per_pattern: models trained a pattern, which differ by dropout and batches (the
            authors: 3).
        weighting: of the patterns: `uniform`, or each one's `accuracy` on the training examples
            before any training.
        **kwargs: arguments of `LanguageLearner`.

    Raises:
        FewshotError: the backbone fills in no masks, or an argument is out of range.
    """

    backbone: MaskedLanguageModel

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        distil: bool = True,
        distil_steps: Count = 5000,
        temperature: Positive = 2.0,
        weighting: Literal["uniform", "accuracy"] = "uniform",
        soften_classifier: bool = False,
        models_per_pattern: Count = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if not isinstance(self.backbone, MaskedLanguageModel):
            raise FewshotError(
                f"{type(self.backbone).__name__} fills in no masks; choose MaskedLanguageModel"
            )
        self.soften_classifier, self.models_per_pattern = soften_classifier, models_per_pattern
        self.distil, self.distil_steps, self.temperature, self.weighting = (
            distil,
            distil_steps,
            temperature,
            weighting,
        )

    def learn(self, support: Examples) -> Ensemble | TextClassifier:
        """The trained ensemble, or the classifier that it has taught."""
        inputs, known = views(support.inputs), support.targets >= 0
        if self.distil and known.all():
            raise FewshotError(
                "PET distils on unlabelled examples, of which there are none; set model.distil:"
                " false"
            )
        labelled, labels = picked(inputs, known), support.targets[known]
        models, weights = [], []
        patterns = inputs["tokens"].shape[1] - 1
        for number in range(patterns * self.models_per_pattern):
            view, model = self._view(number), deepcopy(self.backbone)
            weights.append(self._weight(model, labelled, labels, view))
            self.descend(model, self._loss(model, labelled, labels, view), len(labels), self.steps)
            models.append(model)
        share = torch.tensor(weights if any(weights) else [1.0] * len(weights), device=self.device)
        ensemble = Ensemble(models, share / share.sum())
        return self._distilled(ensemble, picked(inputs, ~known)) if self.distil else ensemble

    def predict(self, adapted: Ensemble | TextClassifier, inputs: Inputs) -> Tensor:
        """Scores (n, C) of inputs (n, V, ...)."""
        if isinstance(adapted, TextClassifier):
            return self.in_parts(adapted, adapted, inputs)
        scores = [
            self.in_parts(model, partial(candidate_scores, model, view=self._view(number)), inputs)
            for number, model in enumerate(adapted.models)
        ]
        return torch.einsum("p,pnc->nc", adapted.weights, torch.stack(scores))

    def _view(self, number: int) -> int:
        """The pattern that model `number` reads, as the place of its view."""
        return 1 + number // self.models_per_pattern

    def _weight(
        self, model: MaskedLanguageModel, inputs: dict[str, Tensor], labels: Tensor, view: int
    ) -> float:
        if self.weighting == "uniform":
            return 1.0
        scores = self.in_parts(model, lambda part: candidate_scores(model, part, view), inputs)
        return float((scores.argmax(-1) == labels).float().mean())

    def _loss(
        self, model: MaskedLanguageModel, inputs: dict[str, Tensor], labels: Tensor, view: int
    ) -> Any:
        several = inputs["answers"].shape[-1] > 1

        def loss(rows: Tensor) -> Tensor:
            scores = one_pass_scores(model, picked(inputs, rows), view)
            return hinge(scores, labels[rows]) if several else F.cross_entropy(scores, labels[rows])

        return loss

    def _distilled(self, ensemble: Ensemble, inputs: dict[str, Tensor]) -> TextClassifier:
        soft = (self.predict(ensemble, inputs) / self.temperature).softmax(-1)
        own = self.temperature if self.soften_classifier else 1.0
        return self.classifier(inputs, soft, self.distil_steps, own)


def hinge(scores: Tensor, labels: Tensor) -> Tensor:
    """The mean over b of the sum over wrong y' of max(0, 1 - s_y + s_y'), of scores (b, C)."""
    right = scores.gather(1, labels[:, None])
    wrong = F.one_hot(labels, scores.shape[1]) == 0
    return ((1 - right + scores).clamp(min=0) * wrong).sum(-1).mean()


def one_pass_scores(model: MaskedLanguageModel, inputs: dict[str, Tensor], view: int) -> Tensor:
    """Log-probabilities (b, C) of candidates, in the masks of the longest, its last ones unread."""
    tokens, lengths = sequences(inputs, view)
    answers = inputs["answers"][:, view]  # (b, C, M)
    pieces = (answers >= 0).sum(-1)
    longest = pieces.argmax(-1) if tokens.shape[1] > 1 else torch.zeros_like(pieces[:, 0])
    row = torch.arange(len(tokens), device=tokens.device)
    first = inputs["places"][row, view, longest]
    read = {"tokens": tokens[row, longest], "lengths": lengths[row, longest]}
    masks = mask_places(first, answers.shape[-1], read["lengths"])
    logs = model.vocabulary_logits(read, masks).log_softmax(-1)  # (b, M, pieces)
    said = logs.gather(-1, answers.clamp(min=0).mT).mT  # (b, C, M)
    return said.masked_fill(answers < 0, 0).sum(-1).masked_fill(pieces == 0, NO_CANDIDATE)


def candidate_scores(model: MaskedLanguageModel, inputs: dict[str, Tensor], view: int) -> Tensor:
    """Log-probabilities (b, C): a mask for each piece of a candidate, the surest filled first."""
    answers = inputs["answers"][:, view]
    if answers.shape[-1] == 1:
        return one_pass_scores(model, inputs, view)
    there = (answers >= 0).any(-1)  # (b, C), below N of them
    tokens, lengths = (part[there] for part in sequences(inputs, view))
    pieces, row = answers[there], torch.arange(len(tokens), device=tokens.device)  # (N, M)
    masks = mask_places(inputs["places"][:, view][there], pieces.shape[-1], lengths)
    left, score = pieces >= 0, torch.zeros(len(tokens), device=tokens.device)
    while left.any():
        logs = model.vocabulary_logits({"tokens": tokens, "lengths": lengths}, masks).log_softmax(
            -1
        )
        sure, best = (
            logs.gather(-1, pieces.clamp(min=0)[..., None])[..., 0]
            .masked_fill(~left, -torch.inf)
            .max(-1)
        )
        open_ = left.any(-1)
        score = score + sure.where(open_, 0.0)
        place = masks[row, best]
        tokens[row, place] = torch.where(open_, pieces[row, best], tokens[row, place])
        left = left & (best[:, None] != torch.arange(left.shape[1], device=left.device))
    return score.new_full(there.shape, NO_CANDIDATE).masked_scatter(there, score)


def mask_places(first: Tensor, pieces: int, lengths: Tensor) -> Tensor:
    """The places (n, M) of masks from `first` (n,) on.

    Those past a text's end, which nobody reads, at its end.
    """
    places = first[:, None] + torch.arange(pieces, device=first.device)
    return places.minimum((lengths - 1).clamp(min=0)[:, None])
