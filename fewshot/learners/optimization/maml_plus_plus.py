"""MAML++ (Antoniou et al., arXiv:1810.09502): how to train your MAML."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from fewshot.arguments import Count, NonNegative, Part, Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.compiling.torch_internals import internal
from fewshot.engine.inner_loop import Weights
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.optimization.network import check_shapes
from fewshot.learners.optimization.parameters import as_key
from fewshot.learners.outcome import Outcome


class MAMLPlusPlus(OptimizationLearner):
    """MAML++: MAML with five remedies for its training, each a switch. Paper: arXiv:1810.09502.

    The shares are of the whole training, from its first meta-step to its last; the paper's are 10
    to 15 and 50 of 100 epochs. The paper's accuracy is that of an ensemble of five checkpoints,
    which this is not.

    Args:
        backbone: the network from inputs to features.
        inner_lr: learning rate of the inner loop, on the mean support loss; where the rates are
            learned, their start.
        inner_steps: gradient steps of the inner loop in training.
        multi_step_loss: in the first `multi_step_share` of training, weigh the query losses after
            all inner steps, at first equally, in the end the last one alone.
        learned_rates: learn a rate for every parameter tensor and inner step (LSLR).
        per_step_norm: every inner step has batch normalisation of its own: its batch's statistics,
            as always in this family (the authors' code keeps running averages, but never normalises
            by them), and its own scales and shifts, which the outer loop learns and the inner loop
            leaves alone.
        cosine_schedule: decay the outer rate along a cosine to `final_lr` at the end of training.
        derivative_annealing: leave out second derivatives in the first `first_order_share` of
            training (the authors' released settings: off).
        multi_step_share: see `multi_step_loss` (the paper: 10 to 15 of 100 epochs).
        first_order_share: see `derivative_annealing`.
        final_lr: see `cosine_schedule` (the paper: 1e-5).
        **kwargs: arguments of `OptimizationLearner`. Inner steps beyond `inner_steps` at evaluation
            share the rates and scales of the last one.
    """

    knows_weights_by_name = True
    bookkeeping = ("progress",)
    importance: Tensor
    first_order: bool
    """Whether training is in its part without second derivatives."""
    multi_step: bool
    """Whether training is in its part where the losses after all steps count."""

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: Positive = 0.1,
        inner_steps: Count = 5,
        multi_step_loss: bool = True,
        learned_rates: bool = True,
        per_step_norm: bool = True,
        cosine_schedule: bool = True,
        derivative_annealing: bool = True,
        multi_step_share: Part = 0.1,
        first_order_share: Part = 0.5,
        final_lr: NonNegative = 1e-5,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, inner_steps=inner_steps, **kwargs)
        if cosine_schedule and self.lr_scheduler is not None:
            raise FewshotError(
                "cosine_schedule and lr_scheduler are both set; set cosine_schedule: false or"
                " drop one"
            )
        self.inner_lr, self.cosine_schedule, self.final_lr = inner_lr, cosine_schedule, final_lr
        self.multi_step_share = multi_step_share if multi_step_loss else 0.0
        self.first_order_share = first_order_share if derivative_annealing else 0.0
        self.register_buffer("importance", torch.zeros(inner_steps), persistent=False)
        self.set_progress(1.0)  # outside of training, its end
        self.norms = nn.ParameterDict()
        if per_step_norm and not self.head_only:
            self._give_each_step_its_norm()
        names = self.adapted_names if learned_rates else ()
        self.begins_at = ("inner_lr",) if learned_rates else ()
        self.rates = nn.ParameterDict(
            {as_key(name): torch.full((inner_steps,), inner_lr) for name in names}
        )

    def _give_each_step_its_norm(self) -> None:
        """Replace the scales and shifts of batch normalisation by one for each step."""
        parameters = dict(self.network.named_parameters())
        batch_norm = internal("torch.nn.modules.batchnorm._BatchNorm")
        for module_name, module in self.network.named_modules():
            if isinstance(module, batch_norm):
                check_shapes(module, type(self).__name__)
            for name in (
                ("weight", "bias") if isinstance(module, batch_norm) and module.affine else ()
            ):
                parameter = parameters[f"{module_name}.{name}"].requires_grad_(False)
                self.norms[as_key(f"{module_name}.{name}")] = parameter.detach().repeat(
                    self.inner_steps, 1
                )
        self.adapted_names = tuple(
            name for name in self.adapted_names if as_key(name) not in self.norms
        )

    # ------------------------------------------------------------------ one episode

    def norm_of(self, step: int) -> Weights:
        """The scales and shifts (C,) of batch normalisation in inner step 0, 1, ..., by name."""
        step = min(step, self.inner_steps - 1)
        return {name: self.norms[as_key(name)][step] for name, _ in self.network.named_parameters()
                if as_key(name) in self.norms}  # fmt: skip

    def rate(self, step: int, name: str) -> Tensor | float:
        """The rate of a parameter in inner step 0, 1, ..."""
        return (
            self.rates[as_key(name)][min(step, self.inner_steps - 1)]
            if self.rates
            else self.inner_lr
        )

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Gradient descent at each step's own rates, under each step's own normalisation."""
        weights = self.initial_weights()
        yield weights | self.norm_of(0)
        for step in range(steps):
            norm = self.norm_of(step)
            rate = lambda _, name, step=step: self.rate(step, name)  # noqa: E731
            *_, weights = self.descend(support, weights, 1, rate, self.first_order, norm)
            yield weights | norm

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: the query losses of every step, weighted, or the last one's."""
        support = Examples(self.embedded(episode.support.inputs), episode.support.targets)
        query = self.embedded(episode.query.inputs)
        losses = []
        for step, weights in enumerate(self.inner_loop(support, self.inner_steps)):
            if step == self.inner_steps or (step > 0 and self.multi_step):
                outcome = self._outcome(self.forward_with(weights, query), episode.query)
                losses.append(self.importance[step - 1] * outcome.loss)
        return outcome._replace(loss=torch.stack(losses).sum()) if self.multi_step else outcome

    # ------------------------------------------------------------------ the course of training

    def set_progress(self, progress: float) -> None:
        """Set the share of training that is over: derivative order and loss weights follow it."""
        self.progress = progress
        self.first_order = progress < self.first_order_share
        self.multi_step = progress < self.multi_step_share
        if self.multi_step:
            share = max(1 - progress / self.multi_step_share, 0.03) / self.inner_steps
            self.importance.fill_(share)
            self.importance[-1] = 1 - share * (self.inner_steps - 1)

    def on_train_batch_start(self, batch: Episode, batch_idx: int) -> None:
        """Follow the course of training."""
        self.set_progress(self.trainer.global_step / self.trainer.estimated_stepping_batches)

    def on_train_end(self) -> None:
        """Training is over."""
        self.set_progress(1.0)

    def configure_optimizers(self) -> Any:
        """The outer optimizer, with its cosine."""
        optimizer = super().configure_optimizers()
        if not self.cosine_schedule:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        if steps == float("inf"):
            raise FewshotError(
                "cosine_schedule needs an end of training; set max_epochs or cosine_schedule: false"
            )
        return [optimizer], [CosineAnnealingLR(optimizer, T_max=int(steps), eta_min=self.final_lr)]
