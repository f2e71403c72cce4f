"""What learners of a language task from its examples alone share: gradient descent of whole models.

Shapes: n examples, b of a batch, V views (the plain text, then a pattern each), C candidates, S
sequences of a view (1, or C where each candidate has its own), L places.
"""

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LinearLR

from fewshot.arguments import Count, NonNegative
from fewshot.backbones.base import Backbone
from fewshot.backbones.hugging_face import HuggingFaceEncoder
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.randomness import seed_generators
from fewshot.episodes.types import Episode, Examples, Inputs, count, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Classification

NO_CANDIDATE = -1e4  # the score of what is no candidate: below any log-probability
VIEWS = ("tokens", "lengths", "places", "answers")
GRADIENT_CLIP = 1.0  # the largest norm, as in the paper's code


class LanguageLearner(MetaLearner):
    """A language model that learns each task from its support alone: all training is in `adapt`.

    The support's examples without a label have the target -1. What is drawn at random (heads,
    dropout, batches) is a function of the support in its order. The model itself is left as it is:
    copies of it are trained.

    Args:
        backbone: the language model.
        steps: gradient steps.
        batch: examples of a step.
        lr: learning rate of AdamW, which falls to 0 in equal steps.
        weight_decay: of AdamW.
        decay_vectors: decay biases and the norms' scales too; PET's code leaves them out.
        judged_at_once: texts of a forward pass where nothing is trained, an example's candidates
            each counted where each has its own, but one example at least; changes speed and memory
            alone.
        **kwargs: arguments of `MetaLearner`; those of its optimizer have no use here.

    Raises:
        FewshotError: an argument out of range, another backbone, or a task that is no
            classification.
    """

    trains_on = "nothing"
    takes = Classification
    task: Classification
    backbone: HuggingFaceEncoder

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        steps: Count = 250,
        batch: Count = 16,
        lr: NonNegative = 1e-5,
        weight_decay: NonNegative = 0.01,
        decay_vectors: bool = True,
        judged_at_once: Count = 64,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        if not isinstance(self.backbone, HuggingFaceEncoder):
            raise FewshotError(
                f"{type(self).__name__} classifies by a language model; give it a classification"
                " task of texts, such as FewGLUEDataModule, and the backbone MaskedLanguageModel,"
                f" not {self.task.kind} and {type(self.backbone).__name__}"
            )
        self.steps, self.batch, self.lr, self.weight_decay = steps, batch, lr, weight_decay
        self.decay_vectors, self.judged_at_once = decay_vectors, judged_at_once

    @abstractmethod
    def learn(self, support: Examples) -> Any:
        """The trained models, from a support (S, V, ...) with plain labels.

        Called with gradients and a seed set.
        """

    @abstractmethod
    def predict(self, adapted: Any, inputs: Inputs) -> Tensor:
        """Scores (n, C) of inputs (n, V, ...)."""

    def adapt(self, support: Examples) -> Any:
        """Train on one support set.

        Raises:
            FewshotError: its inputs are no views of texts, or it holds no label.
        """
        inputs = views(support.inputs)
        labels = self.task.labels(support.targets)
        if not (labels >= 0).any():
            raise FewshotError("the support holds no labelled example; give it at least one")
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices):
            seed_generators(
                self.device, zlib.crc32(inputs["tokens"].cpu().contiguous().numpy().tobytes())
            )
            return self.learn(map_tensors(torch.clone, Examples(inputs, labels)))

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Adapt and predict episode by episode."""
        for i in range(count(episodes)):
            one = episode(episodes, i)
            outputs = self.predict(self.adapt(one.support), one.query.inputs)
            metrics = self.task.metrics(outputs, one.query.targets)
            loss = self.task.loss(outputs, one.query.targets)
            yield Outcome(
                loss[None], {name: value[None] for name, value in metrics.items()}, outputs[None]
            )

    def configure_optimizers(self) -> Any:
        """Refuse: there is nothing to train before a task is seen."""
        raise FewshotError(
            f"{type(self).__name__} learns each task when it is tested; use `fewshot test`"
        )

    # ------------------------------------------------------------------ training and scoring

    def descend(
        self, model: nn.Module, loss: Callable[[Tensor], Tensor], examples: int, steps: int
    ) -> None:
        """Train `model` by AdamW on the `loss` of `steps` batches of rows (b,), pass by pass."""
        optimizer = AdamW(self.groups(model), self.lr, weight_decay=self.weight_decay)
        schedule = LinearLR(optimizer, 1.0, 0.0, steps)
        model.train()
        for rows in batches(examples, self.batch, steps):
            optimizer.zero_grad()
            loss(rows.to(self.device)).backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_CLIP)
            if not norm.isfinite():
                raise FewshotError(f"the gradient of a step is not finite; lower lr from {self.lr}")
            optimizer.step()
            schedule.step()

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The parameters as AdamW takes them: those that decay, then those that do not."""
        decayed = [p for p in model.parameters() if self.decay_vectors or p.dim() > 1]
        others = [p for p in model.parameters() if not (self.decay_vectors or p.dim() > 1)]
        rest = [{"params": others, "weight_decay": 0.0}] if others else []
        return [{"params": decayed}, *rest]

    def classifier(
        self, inputs: dict[str, Tensor], targets: Tensor, steps: int, temperature: float = 1.0
    ) -> "TextClassifier":
        """Train a classifier of plain texts (n, V, ...) on labels (n,) or probabilities (n, C).

        A `temperature` T softens its logits; the loss is multiplied by T^2, as its gradient is
        smaller.
        """
        outputs = self.task.one_way if inputs["tokens"].shape[2] == 1 else 1
        model = TextClassifier(self.backbone, outputs)
        self.descend(
            model,
            lambda b: (
                F.cross_entropy(model(picked(inputs, b)) / temperature, targets[b]) * temperature**2
            ),
            len(targets),
            steps,
        )
        return model

    def in_parts(
        self, model: nn.Module, score: Callable[[dict[str, Tensor]], Tensor], inputs: Inputs
    ) -> Tensor:
        """Scores (n, C) of inputs (n, V, ...), in chunks, in evaluation mode without gradients."""
        whole = views(inputs)
        with evaluation_mode(model), torch.no_grad():
            rows = torch.arange(len(whole["tokens"]), device=whole["tokens"].device)
            size = max(1, self.judged_at_once // whole["tokens"].shape[2])
            return torch.cat([score(picked(whole, part)) for part in torch.split(rows, size)])


class TextClassifier(nn.Module):
    """A copied language model with a linear head on plain texts: label logits, or one a candidate.

    Args:
        backbone: what is copied; the copy is trained.
        outputs: the labels, or 1 where each candidate has a sequence of its own.
    """

    def __init__(self, backbone: HuggingFaceEncoder, outputs: int) -> None:
        super().__init__()
        self.backbone = deepcopy(backbone)
        self.head = nn.Linear(
            backbone.out_features, outputs, device=next(backbone.parameters()).device
        )
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs: dict[str, Tensor]) -> Tensor:
        """Logits (b, C) of inputs (b, V, ...)."""
        tokens, lengths = sequences(inputs, 0)
        there = lengths > 0
        logits: Tensor = self.head(
            self.backbone({"tokens": tokens[there], "lengths": lengths[there]})
        )
        if tokens.shape[1] == 1:
            return logits
        return logits.new_full(there.shape, NO_CANDIDATE).masked_scatter(there, logits)


def views(inputs: Inputs) -> dict[str, Tensor]:
    """The inputs, checked to be views of texts (n, V, ...).

    Raises:
        FewshotError: they are something else.
    """
    if not isinstance(inputs, dict) or set(VIEWS) - set(inputs):
        raise FewshotError(
            "the inputs are no texts by patterns; choose FewGLUEDataModule or another learner"
        )
    return inputs


def picked(inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """The rows (b,) of inputs (n, ...)."""
    return {name: value[rows] for name, value in inputs.items()}


def sequences(inputs: dict[str, Tensor], view: int) -> tuple[Tensor, Tensor]:
    """Tokens (b, S, L) and lengths (b, S) of a view, without places empty in all sequences."""
    lengths = inputs["lengths"][:, view]
    return inputs["tokens"][:, view, :, : int(lengths.max())], lengths


def batches(examples: int, size: int, steps: int) -> Iterator[Tensor]:
    """Rows of `steps` batches of `size` (all examples if fewer), pass by pass in random order."""
    size, order = min(size, examples), torch.empty(0, dtype=torch.long, device="cpu")
    for _ in range(steps):
        if len(order) < size:
            order = torch.cat([order, torch.randperm(examples, device="cpu")])
        yield order[:size]
        order = order[size:]
