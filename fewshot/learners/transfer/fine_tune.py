"""Fine-tuning of a pre-trained network on each episode (Dhillon et al., arXiv:1909.02729)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Natural, NonNegative
from fewshot.backbones.base import Backbone
from fewshot.backbones.channels_last import channels_last, kernels
from fewshot.engine.inner_loop import Weights, descend_in_place
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.own_checkpoints import call_with, run_with
from fewshot.episodes.types import Episode, Examples, Inputs, count, episode, map_tensors
from fewshot.learners.outcome import Outcome
from fewshot.learners.transfer.base import TransferLearner
from fewshot.learners.transfer.heads import SGD, descend, linear_gradient, linear_logits, with_ones

# no parameter of a backbone has a name without a dot before it: they begin with `backbone.`
HEAD = "head"


class FineTune(TransferLearner):
    """FineTune: cross-entropy pre-training, then descent of the whole network on each support.

    The network starts at its pre-trained weights, which come from `fewshot fit`, from `weights`, or
    with the backbone. An episode's linear head starts at the normalised class means of the
    support's features. The paper takes 25 steps of Adam at 5e-5 on large networks; here they are
    plain gradient descent on the mean support loss. The outcome depends on neither the order of the
    support nor the classes' names. Paper: arXiv:1909.02729.

    While the network adapts, `inductive` batch normalisation uses the running averages of training,
    `transductive` the batch at hand: the support in adaptation, the queries in prediction.

    Args:
        backbone: the network from inputs to features.
        adapt: what adapts: `all`, or the `head` alone, which is much faster.
        steps: gradient steps on the support; 0 leaves the class means.
        lr: learning rate of the backbone.
        head_lr: learning rate of the head.
        **kwargs: arguments of `TransferLearner`.
    """

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        adapt: Literal["all", "head"] = "all",
        steps: Natural = 25,
        lr: NonNegative = 0.01,
        head_lr: NonNegative = 0.01,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.adapts, self.steps, self.lr, self.head_lr = adapt, steps, lr, head_lr

    # ------------------------------------------------------------------ the head alone

    def fit(self, features: Tensor, targets: Tensor, way: int) -> Weights:
        """The heads (..., N, D + 1) of support features (..., S, D), the backbone left alone."""
        x = with_ones(features)
        sgd = SGD(self.head_lr, 0.0, 0.0, 0.0, self.steps, targets.shape[-1])
        return {
            HEAD: descend(
                linear_gradient, {"weight": start_of(features, targets, way)}, x, targets, way, sgd
            )["weight"]
        }

    def compare(self, predictor: Weights, features: Tensor) -> Tensor:
        """Logits (..., n, N) of query features (..., n, D)."""
        return linear_logits({"weight": predictor[HEAD]}, with_ones(features))

    # ------------------------------------------------------------------ the whole network, one epis

    def adapt(self, support: Examples) -> Weights:
        """The adapted weights of one support set: the head's, and the backbone's if it adapts."""
        if self.adapts == "head":
            adapted: Weights = super().adapt(support)
            return adapted
        with torch.inference_mode(False), evaluation_mode(self.backbone), self._norm():
            return self._fine_tuned(map_tensors(torch.clone, support))

    def predict(self, adapted: Weights, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...)."""
        if self.adapts == "head":
            return super().predict(adapted, inputs)
        with evaluation_mode(self.backbone), self._norm():
            logits: Tensor = self.none(self._logits(adapted, inputs))
            return logits

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Fine-tune and judge episode by episode; where the head alone adapts, all at once."""
        if self.adapts == "head":
            yield from super().run(episodes, training)
            return
        outputs = []
        for i in range(count(episodes)):
            one = episode(episodes, i)
            outputs.append(self.predict(self.adapt(one.support), one.query.inputs))
        yield self.judged(torch.stack(outputs), episodes.query.targets)

    def _fine_tuned(self, support: Examples) -> Weights:
        """The weights after gradient descent on the mean support loss."""
        way = int(support.targets.max()) + 1
        with torch.no_grad():  # which gives lazy layers their shapes
            head = start_of(self.embed(support.inputs), support.targets, way)
        read_so = kernels(self.backbone)
        body = {
            name: (channels_last(weight.detach()) if name in read_so else weight.detach()).clone()
            for name, weight in self.backbone.named_parameters()
            if weight.requires_grad
        }
        rates = [(weight.requires_grad_(), self.lr) for weight in body.values()]
        rates.append((head.requires_grad_(), self.head_lr))

        def loss() -> Tensor:
            logits = self.compare({HEAD: head}, self.backbone(support.inputs))
            return self.task.loss(logits, support.targets)

        # The weights change in the network, which spares each step to put new ones there.
        run_with(self.backbone, body, descend_in_place, loss, rates, self.steps)
        tuned = {f"backbone.{name}": weight for name, weight in body.items()} | {HEAD: head}
        return {name: weight.detach() for name, weight in tuned.items()}

    def _logits(self, weights: Weights, inputs: Inputs) -> Tensor:
        body = {
            name.removeprefix("backbone."): weight
            for name, weight in weights.items()
            if name != HEAD
        }
        return self.compare(weights, call_with(self.backbone, body, inputs))

    def _norm(self) -> AbstractContextManager[Any]:
        return EpisodeNorm(exact_vmap=False) if self.batchnorm == "transductive" else nullcontext()


def start_of(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """The first head (..., N, D + 1): unit-length class means of (..., S, D), a bias of zero."""
    member = F.one_hot(labels, way).to(features.dtype)  # (..., S, N)
    return F.pad(F.normalize(member.mT @ features, dim=-1), (0, 1))
