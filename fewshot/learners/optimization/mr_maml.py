"""Meta-regularised MAML (Yin et al., arXiv:1912.03820): W and A."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from fewshot.arguments import Count, NonNegative, Positive
from fewshot.backbones.base import Backbone, features_of
from fewshot.engine.inner_loop import Weights
from fewshot.engine.normalization import EpisodeNorm, normalises_batches
from fewshot.engine.own_checkpoints import call_with
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.errors import FewshotError
from fewshot.learners.optimization.maml import MAML
from fewshot.learners.optimization.parameters import as_key
from fewshot.learners.outcome import Outcome
from fewshot.tasks import make_task

SPREAD = -4.0
"""Where the deviations of the paper's weights begin, before softplus: 0.018."""


class Encoder(nn.Module):
    """Inputs (n, ...) to codes (n, size): a backbone and a linear layer."""

    def __init__(self, backbone: nn.Module, features: int, size: int) -> None:
        super().__init__()
        self.backbone, self.code = backbone, nn.Linear(features, size)

    def forward(self, inputs: Inputs) -> Tensor:
        """The codes."""
        code: Tensor = self.code(features_of(self.backbone, inputs))
        return code


class MRMAML(MAML):
    """MRMAML: MAML behind an encoder that is kept from memorising what training tasks are.

    For tasks that one function answers without their supports. Paper: arXiv:1912.03820.

    The encoder is the backbone and a linear layer to a small `code`; the inner loop leaves it
    alone, and adapts the layers behind it. What the encoder may tell of a task is paid for.

    Two forms. `weights` (W): the encoder's weights are a normal distribution, near one of mean 0
    and deviation 1. `activations` (A): the code of an input is one. And two recipes. `notebook` is
    what the authors' notebook runs, and what works: for W the deviations stay at 0, so that the
    price is `beta` / 2 of the squared weights; and the optimizer is made anew at every step (W: for
    all weights; A: for the encoder), so that with Adam each weight moves by the learning rate, up
    or down. `paper` is what the paper's words say: learned deviations, one optimizer. On sinusoids
    it memorises (docs/challenges.md). W needs a backbone without batch normalisation, which undoes
    the size of the weights before it, and so what they cost.

    Args:
        backbone: the encoder, from inputs to features.
        task: the task kind as plain facts.
        inner_lr: learning rate of the inner loop, on the mean support loss.
        regularize: `weights` (W) or `activations` (A).
        beta: the price of the divergence; None means the notebook's: 5e-5 for W, 5 for A.
        recipe: `notebook` or `paper`.
        code: values of the code.
        hidden: widths of the layers that adapt, each with ReLU.
        **kwargs: arguments of `MAML`, without `adapt` and `head`.

    Raises:
        FewshotError: `hidden` is empty, or the task is segmentation.
    """

    fixed_arguments = ("adapt", "head")
    mixes_features = False  # inputs are encoded before they reach the network
    encoder: Encoder
    knows_weights_by_name = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        task: dict[str, Any],
        inner_lr: Positive = 0.01,
        regularize: Literal["weights", "activations"] = "weights",
        beta: NonNegative | None = None,
        recipe: Literal["notebook", "paper"] = "notebook",
        code: Count = 5,
        hidden: Sequence[Count] = (40, 40),
        **kwargs: Any,
    ) -> None:
        if not hidden:
            raise FewshotError("hidden is empty; give the layers that adapt, such as [40, 40]")
        kind = make_task(task)
        if kind.dense:
            raise FewshotError("MRMAML has a code of an input, no map; choose MAML")
        layers: list[nn.Module] = []
        for c_in, c_out in zip((code, *hidden), hidden, strict=False):
            layers += [nn.Linear(c_in, c_out), nn.ReLU()]
        head = nn.Sequential(*layers, nn.Linear(hidden[-1], kind.output_size))
        super().__init__(backbone, task=task, inner_lr=inner_lr, head=head, adapt="head", **kwargs)
        self.regularize, self.recipe, self.size = regularize, recipe, code
        by_activations = regularize == "activations"
        self.beta = (5.0 if by_activations else 5e-5) if beta is None else beta
        encoder = Encoder(self.backbone, self.features, 2 * code if by_activations else code)
        # Not a submodule: the parameters are registered once, as backbone.* and code.*
        object.__setattr__(self, "encoder", encoder)
        self.code = encoder.code
        self.spread = nn.ParameterDict()
        if not by_activations and recipe == "paper":
            self.spread.update(
                {
                    as_key(name): nn.Parameter(torch.full_like(weight, SPREAD))
                    for name, weight in self.encoder.named_parameters()
                }
            )

    def on_fit_start(self) -> None:
        """Tell where the price of W is paid for nothing."""
        super().on_fit_start()
        if self.regularize == "weights" and normalises_batches(self.encoder):
            rank_zero_info(
                "MRMAML pays for the size of its encoder's weights, which batch normalisation"
                " undoes, so that it may memorise; choose a backbone without it"
            )

    def embedded(self, inputs: Inputs) -> Tensor:
        """The codes (n, code) of inputs (n, ...); of distributions their means."""
        code: Tensor = self.encoder(inputs)
        return code[:, : self.size]

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: the adapted network's query loss, and what the code costs."""
        support, query, cost = self._encoded(episode)
        inside = Examples(support, episode.support.targets)
        *_, weights = self.inner_loop(inside, self.inner_steps)
        outcome = self._outcome(self.forward_with(weights, query), episode.query)
        return outcome._replace(loss=outcome.loss + self.beta * cost)

    def _encoded(self, episode: Episode) -> tuple[Tensor, Tensor, Tensor]:
        """The codes of an episode's support and query, and their divergence, a scalar."""
        inputs = [part.inputs for part in episode]
        if self.regularize == "weights":
            weights, cost = self._drawn_weights()
            support, query = (call_with(self.encoder, weights, one) for one in inputs)
            return support, query, cost
        found = [self.encoder(one) for one in inputs]
        means = [code[:, : self.size] for code in found]
        deviations = [F.softplus(code[:, self.size :]) for code in found]
        costs = [divergence(m, s).mean() for m, s in zip(means, deviations, strict=True)]
        support, query = (
            m + s * torch.randn_like(s) for m, s in zip(means, deviations, strict=True)
        )
        return support, query, torch.stack(costs).mean()

    def _drawn_weights(self) -> tuple[Weights, Tensor]:
        """The encoder's weights, drawn where they have deviations; and their divergence."""
        means: Weights = dict(self.encoder.named_parameters())
        if not self.spread:  # their deviations cost the same always
            return means, torch.stack([w.square().sum() for w in means.values()]).sum() / 2
        deviations = {name: F.softplus(self.spread[as_key(name)]) for name in means}
        costs = [divergence(means[name], deviations[name]).sum() for name in means]
        drawn = {n: w + deviations[n] * torch.randn_like(w) for n, w in means.items()}
        return drawn, torch.stack(costs).sum()

    def configure_optimizers(self) -> Any:
        """The outer optimizer, which in the notebook's recipe forgets after every step."""
        made = super().configure_optimizers()
        if self.recipe == "notebook":
            optimizer = made[0][0] if isinstance(made, tuple | list) else made
            whole = self.regularize == "weights"
            forgotten = set((self if whole else self.encoder).parameters())

            def forget(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
                for parameter in forgotten:
                    optimizer.state.pop(parameter, None)

            optimizer.register_step_post_hook(forget)
        return made


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """KL(N(mean, deviation^2) || N(0, 1)), value by value."""
    return (deviation.square() + mean.square() - 1) / 2 - deviation.log()
