"""Fine-tuning of a pre-trained network on each episode (Dhillon et al., arXiv:1909.02729)."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import count as count_from
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import Natural, NonNegative, Positive
from fewshot.backbones.adapters import Adapters, AdapterWeights, WithAdapters
from fewshot.backbones.base import Backbone
from fewshot.backbones.channels_last import channels_last, kernels
from fewshot.engine.augmentation import Augmentation
from fewshot.engine.inner_loop import Weights, adadelta_in_place, adam_in_place, descend_in_place
from fewshot.engine.modes import evaluation_mode
from fewshot.engine.normalization import EpisodeNorm
from fewshot.engine.own_checkpoints import call_with, run_with
from fewshot.episodes.types import Episode, Examples, Inputs, count, episode, map_tensors
from fewshot.errors import FewshotError
from fewshot.hyperparameters import build
from fewshot.learners.outcome import Outcome
from fewshot.learners.transfer.base import TransferLearner
from fewshot.learners.transfer.heads import SGD, descend, linear_gradient, linear_logits, with_ones

# no parameter of a backbone has a name without a dot before it: they begin with `backbone.`
HEAD = "head"
MAP = "adapters.map"  # TSA's map of the features
DESCENTS = {"sgd": descend_in_place, "adam": adam_in_place, "adadelta": adadelta_in_place}


class FineTune(TransferLearner):
    """FineTune: cross-entropy pre-training, then descent of the whole network on each support.

    The network starts at its pre-trained weights, which come from `fewshot fit`, from `weights`, or
    with the backbone. An episode's linear head starts at the normalised class means of the
    support's features. The paper takes 25 steps of Adam (`descent: adam`) at 5e-5; the default
    is plain gradient descent on the mean support loss. The outcome depends on neither
    the order of the support nor the classes' names, but for what `augment` draws for each place.
    Paper: arXiv:1909.02729.

    The last stage of P>M>F (arXiv:2204.07305) is `descent: adam`, `head: prototypes`, 50 `steps`,
    an `augment` of a `probability` of 0.9, and `rates`: the support, augmented, is told apart by
    its own class means. The authors choose the rate on other tasks; here each support does.

    While the network adapts, `inductive` batch normalisation uses the running averages of training,
    `transductive` the batch at hand: the support in adaptation, the queries in prediction.

    Args:
        backbone: the network from inputs to features.
        adapters: `LoRA` or `TSA`: small weights beside the backbone's, which adapt in its place;
            training sees none of them. None: the backbone itself adapts.
        adapt: what adapts: `all`, or the `head` alone, which is much faster.
        steps: gradient steps on the support; 0 leaves the class means.
        lr: learning rate of the backbone.
        head_lr: learning rate of the head, and of TSA's linear map.
        descent: `sgd`, plain gradient descent, `adam`, or `adadelta`.
        head: `linear`, or `prototypes`: `scale` times the cosine with the class means of the
            support's features, made anew in each step; where all adapts.
        scale: of the cosines.
        augment: random changes of the support's images in each step, such as ``{padding: 4,
            brightness: 0.5, probability: 0.9}``; None: none. What is drawn is always the same.
        rates: learning rates of the backbone to choose from for each support: the one that, with an
            example of each class to adapt to, is best on the others. With one example of each class
            there is nothing to hold out, and `lr` is taken. None: `lr`.
        **kwargs: arguments of `TransferLearner`.

    Raises:
        FewshotError: arguments that contradict each other, or a frozen backbone that is to adapt.
    """

    beside: AdapterWeights | None

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        adapt: Literal["all", "head"] = "all",
        steps: Natural = 25,
        lr: NonNegative = 0.01,
        head_lr: NonNegative = 0.01,
        descent: Literal["sgd", "adam", "adadelta"] = "sgd",
        head: Literal["linear", "prototypes"] = "linear",
        scale: Positive = 10.0,
        augment: Augmentation | None = None,
        rates: list[NonNegative] | None = None,
        adapters: Adapters | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        self.adapts, self.steps, self.lr, self.head_lr = adapt, steps, lr, head_lr
        self.descent = DESCENTS[descent]
        self.head, self.scale, self.augment, self.rates = head, scale, augment, rates
        whole = {f"descent: {descent}": descent != "sgd", "head: prototypes": head == "prototypes"}
        whole |= {"augment": augment is not None, "rates": rates is not None}
        whole["adapters"] = adapters is not None
        for name, given in whole.items():
            if given and adapt == "head":
                raise FewshotError(f"{name} is for a backbone that adapts; set adapt: all")
        if rates == []:
            raise FewshotError("rates is empty; name some, or leave it out")
        if adapt == "all" and getattr(self.backbone, "frozen", False):
            raise FewshotError(
                "the backbone is frozen and cannot adapt; set adapt: head, or thaw it"
            )
        # Not a submodule: they begin anew in each episode, where the same numbers are drawn always
        object.__setattr__(self, "beside", self._adapter_weights(adapters))

    # ------------------------------------------------------------------ the head alone

    @property
    def head_alone(self) -> bool:
        """Whether the network stays as it is when the learner adapts."""
        return self.adapts == "head"

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
        if self.head == "prototypes":
            return self.scale * F.normalize(features, dim=-1) @ predictor[HEAD][..., :-1].mT
        return linear_logits({"weight": predictor[HEAD]}, with_ones(features))

    # ------------------------------------------------------------------ the whole network, one epis

    def adapt(self, support: Examples) -> Weights:
        """The adapted weights of one support set: the head's, and the backbone's if it adapts."""
        if self.adapts == "head":
            adapted: Weights = super().adapt(support)
            return adapted
        with torch.inference_mode(False), evaluation_mode(self.backbone), self._norm():
            support = map_tensors(torch.clone, support)
            return self._fine_tuned(support, self._rate(support))

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

    def _rate(self, support: Examples) -> float:
        """The learning rate for a support, by holding out all but its first of each class."""
        if self.rates is None or len(self.rates) == 1:
            return self.lr if self.rates is None else self.rates[0]
        first = torch.zeros_like(support.targets, dtype=torch.bool)
        for label in range(int(support.targets.max()) + 1):
            first[(support.targets == label).nonzero()[0]] = True
        if first.all():
            return self.lr
        known, held_out = (
            map_tensors(lambda t: t[rows], support)  # noqa: B023  # used at once
            for rows in (first, ~first)
        )
        judged = []
        for rate in self.rates:
            with torch.no_grad():
                logits = self._logits(self._fine_tuned(known, rate), held_out.inputs)
            right = (logits.argmax(-1) == held_out.targets).float().mean()
            judged.append((float(right), -float(F.cross_entropy(logits, held_out.targets))))
        return self.rates[max(range(len(judged)), key=judged.__getitem__)]

    def _fine_tuned(self, support: Examples, rate: float) -> Weights:
        """The weights after descent on the mean support loss."""
        way = int(support.targets.max()) + 1
        with torch.no_grad():  # which gives lazy layers their shapes
            head = start_of(self.embed(support.inputs), support.targets, way)
        body = self._body(head.device, head.dtype)
        rates = [
            (weight.requires_grad_(), self.head_lr if name == MAP else rate)
            for name, weight in body.items()
        ]
        linear = self.head == "linear"
        if linear:
            rates.append((head.requires_grad_(), self.head_lr))
        step = count_from(0)

        def loss() -> Tensor:
            inputs = self._changed(support.inputs, next(step))
            features = self.adapting(inputs)
            known = features if inputs is support.inputs else None  # read once where it is the same
            now = head if linear else self._prototypes(support, way, known)
            return self.task.loss(self.compare({HEAD: now}, features), support.targets)

        steps = self.steps if any(rate for _, rate in rates) else 0  # a rate of 0 moves nothing
        # The weights change in the network, which spares each step to put new ones there.
        run_with(self.adapting, body, self.descent, loss, rates, steps)
        tuned = {f"backbone.{name}": weight.detach() for name, weight in body.items()}
        if not linear:
            with torch.no_grad():
                head = run_with(self.adapting, body, self._prototypes, support, way)
        return tuned | {HEAD: head.detach()}

    @property
    def adapting(self) -> nn.Module:
        """What adapts, from inputs to features: the backbone, or it and its adapters."""
        if self.beside is None:
            return self.backbone
        return WithAdapters(self.backbone, self.beside)

    def _adapter_weights(self, adapters: Adapters | None) -> AdapterWeights | None:
        kind: Adapters | None = build(adapters, Adapters, "adapters")
        if kind is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return kind.of(self.backbone, self.features)

    def _body(self, device: torch.device, dtype: torch.dtype) -> Weights:
        """Copies of the weights that adapt besides the head, by name."""
        if self.beside is not None:
            begin = self.beside.named_parameters(prefix="adapters")
            return {name: w.detach().to(device, dtype, copy=True) for name, w in begin}
        read_so = kernels(self.backbone)
        return {
            name: (channels_last(weight.detach()) if name in read_so else weight.detach()).clone()
            for name, weight in self.backbone.named_parameters()
            if weight.requires_grad
        }

    def _prototypes(self, support: Examples, way: int, features: Tensor | None = None) -> Tensor:
        """The head of the network as it is: unit-length class means of its features (S, D)."""
        if features is None:
            features = self.adapting(support.inputs)
        return start_of(features, support.targets, way)

    def _changed(self, inputs: Inputs, step: int) -> Inputs:
        """The support's images as step number `step` sees them."""
        if self.augment is None:
            return inputs
        if not isinstance(inputs, Tensor) or inputs.dim() != 4:
            raise FewshotError("augment changes images, which the benchmark's inputs are not")
        drawn = self.augment.draw(np.random.default_rng([step, len(inputs)]), len(inputs))
        return self.augment(inputs, drawn)

    def _logits(self, weights: Weights, inputs: Inputs) -> Tensor:
        body = {
            name.removeprefix("backbone."): weight
            for name, weight in weights.items()
            if name != HEAD
        }
        return self.compare(weights, call_with(self.adapting, body, inputs))

    def _norm(self) -> AbstractContextManager[Any]:
        return EpisodeNorm(exact_vmap=False) if self.batchnorm == "transductive" else nullcontext()


def start_of(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """The first head (..., N, D + 1): unit-length class means of (..., S, D), a bias of zero."""
    member = F.one_hot(labels, way).to(features.dtype)  # (..., S, N)
    return F.pad(F.normalize(member.mT @ features, dim=-1), (0, 1))
