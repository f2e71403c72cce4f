"""Implicit MAML (Rajeswaran et al., arXiv:1909.04630)."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fewshot.arguments import Count, NonNegative, Positive
from fewshot.backbones.base import Backbone
from fewshot.engine.conjugate_gradients import conjugate_gradients
from fewshot.engine.inner_loop import (
    SCALE,
    Weights,
    gradient_steps,
    hessian_product,
    scaled_gradient,
    with_gradient,
)
from fewshot.engine.modes import is_transformed
from fewshot.engine.normalization import EpisodeNorm
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.learners.optimization.base import OptimizationLearner
from fewshot.learners.outcome import Outcome


class IMAML(OptimizationLearner):
    """iMAML: the meta-gradient is that of the inner loop's solution, whatever path led there.

    Paper: arXiv:1909.04630.

    The inner loop minimises L_S(theta') + proximal / 2 * ||theta' - theta||^2 by gradient descent
    without a graph, so that memory does not grow with its steps. The meta-gradient v solves (I + H
    / proximal) v = dL_Q/dtheta', with H the Hessian of L_S at theta', by conjugate gradients. It is
    exact where the inner loop has converged: take enough `inner_steps`. Parameters that `adapt`
    leaves out get their implicit gradient too.

    Args:
        backbone: the network from inputs to features.
        inner_lr: learning rate of the inner loop, on the mean support loss. At the authors' 0.1 on
            Omniglot the inner loop of a Conv4 with batch normalisation does not come to rest, and
            the meta-gradient points elsewhere; theirs is damped (`hessian_damping`).
        inner_steps: gradient steps of the inner loop in training (the paper: 16 on 5-way, 25 on
            20-way Omniglot).
        proximal: lambda, the strength of the pull towards the initialisation (the paper: 2.0 on
            Omniglot).
        cg_steps: iterations of conjugate gradients (the paper: 5).
        cg_damping: added to the identity in the system that is solved: steadier, less exact (the
            authors' code: 1.0).
        hessian_damping: added to `proximal` where that divides the Hessian: as of a stronger pull,
            which the inner loop does not have; steadier, less exact (the authors' code: 10.0).
        pull_once: descend on the support loss alone, and in training take one step of the pull,
            theta' - inner_lr * proximal * (theta' - theta), at the end, as the authors' code does.
            Evaluation then has no pull, as their published command (`--lam 0.0`).
        **kwargs: arguments of `OptimizationLearner`, without `checkpoint_inner_steps`.
    """

    fixed_arguments = ("checkpoint_inner_steps",)  # there is no graph to be spared

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        inner_lr: Positive = 0.02,
        inner_steps: Count = 16,
        proximal: Positive = 2.0,
        cg_steps: Count = 5,
        cg_damping: NonNegative = 0.0,
        hessian_damping: NonNegative = 0.0,
        pull_once: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, inner_steps=inner_steps, checkpoint_inner_steps=False, **kwargs)
        self.inner_lr, self.proximal, self.cg_steps = inner_lr, proximal, cg_steps
        self.cg_damping, self.hessian_damping = cg_damping, hessian_damping
        self.pull_once = pull_once

    def inner_loop(self, support: Examples, steps: int) -> Iterator[Weights]:
        """Gradient descent on the support loss and the pull to the initialisation, graph-free.

        With `pull_once` on the support loss alone.
        """
        start = {name: weight.detach() for name, weight in self.initial_weights().items()}

        def objective(weights: Weights) -> Tensor:
            loss = self._loss(weights, support)
            if self.pull_once:
                return loss
            away = [(weights[name] - start[name]).square().sum() for name in start]
            return loss + self.proximal / 2 * torch.stack(away).sum()

        return gradient_steps(
            objective, start, self.inner_lr, steps, first_order=True, clip=self.inner_gradient_clip
        )

    def solution(self, support: Examples) -> Weights:
        """Where the inner loop of training ends."""
        path = self.inner_loop(support, self.inner_steps)
        start = weights = next(path)
        for weights in path:  # noqa: B007  # nothing but the last ones is kept
            pass
        if not self.pull_once:
            return weights
        share = self.inner_lr * self.proximal
        return {name: weight - share * (weight - start[name]) for name, weight in weights.items()}

    def training_outcome(self, episode: Episode, norm: EpisodeNorm) -> Outcome:
        """One training episode: query loss at the inner loop's solution, with implicit gradient."""
        support = Examples(self.embedded(episode.support.inputs), episode.support.targets)
        query = self.embedded(episode.query.inputs)
        weights = self.solution(support)

        outcome, gradient = self._with_slope(weights, query, episode)
        loss = outcome.loss
        with torch.no_grad():
            solution = self.implicit(gradient, weights, support)
        # said once more for a compiler, which sees operations only
        gradient = {name: slope.detach() for name, slope in solution.items()}
        value = with_gradient(loss, self.initial_weights(), gradient)
        if len(self.adapted_names) < sum(p.requires_grad for p in self.network.parameters()):
            # What does not adapt, omega, acts on the query loss directly and through the solution,
            # where dtheta'/domega = -(H + proximal I)^-1 d2L_S/dtheta'domega.
            slopes = scaled_gradient(
                lambda fast_weights: self._loss(fast_weights, support), weights
            )
            rest = loss - torch.stack([(gradient[n] * slopes[n]).sum() for n in slopes]).sum() / (
                self.proximal + self.hessian_damping
            )
            value = value + (rest - rest.detach())
        return outcome._replace(loss=value)

    def _with_slope(
        self, weights: Weights, query: Inputs, episode: Episode
    ) -> tuple[Outcome, Weights]:
        """The outcome under `weights`, and the gradient of its loss by them.

        The outcome has the graph of what does not adapt. Scaled on the way as float16 needs it;
        dividing by a power of two is exact in every precision.
        """

        def query_loss(weights: Weights) -> tuple[Tensor, Outcome]:
            outcome = self._outcome(self.forward_with(weights, query), episode.query)
            return outcome.loss, outcome

        outcome: Outcome
        if is_transformed():
            with_outcome: Any = torch.func.vjp(query_loss, weights, has_aux=True)
            loss, pullback, outcome = with_outcome
            with torch.no_grad():
                slopes = pullback(torch.full_like(loss, SCALE))[0]
            return outcome._replace(loss=loss), {n: slope / SCALE for n, slope in slopes.items()}
        # plain autograd takes any network
        inside = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
        with torch.enable_grad():
            loss, outcome = query_loss(inside)
        found = torch.autograd.grad(
            loss * SCALE, list(inside.values()), retain_graph=True, materialize_grads=True
        )
        outputs = outcome.outputs.detach()
        return outcome._replace(outputs=outputs), {
            name: slope / SCALE for name, slope in zip(inside, found, strict=True)
        }

    def implicit(self, gradient: Weights, weights: Weights, support: Examples) -> Weights:
        """Solve ((1 + cg_damping) I + H / (proximal + hessian_damping)) v = `gradient`.

        H is the Hessian of L_S at `weights`.
        """
        strength = self.proximal + self.hessian_damping
        sizes = [weight.numel() for weight in weights.values()]

        def named(vector: Tensor) -> Weights:
            parts = torch.split(vector, sizes)
            return {
                name: part.view_as(weights[name]) for name, part in zip(weights, parts, strict=True)
            }

        product = hessian_product(
            lambda vector: SCALE * self._loss(named(vector), support), _flat(weights)
        )
        return named(
            conjugate_gradients(
                lambda v: (1 + self.cg_damping) * v + product(v) / (SCALE * strength),
                _flat(gradient),
                self.cg_steps,
            )
        )

    def _loss(self, weights: Weights, support: Examples) -> Tensor:
        return self.task.loss(self.forward_with(weights, support.inputs), support.targets)


def _flat(weights: Weights) -> Tensor:
    return torch.cat([weight.flatten() for weight in weights.values()])
