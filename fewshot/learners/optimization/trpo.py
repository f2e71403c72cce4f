"""Trust region policy optimisation through the inner step (Schulman et al., arXiv:1502.05477)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.optim import SGD, Optimizer

from fewshot.arguments import Count, NonNegative, Part, Positive
from fewshot.errors import FewshotError
from fewshot.learners.optimization.outer import Acts, Outer
from fewshot.tasks import Task

if TYPE_CHECKING:
    from fewshot.episodes.types import Episode


class TRPO(Outer):
    """The step along H^-1 g that the adapted policies' KL divergence allows, found by line search.

    g is the meta-gradient, H the Hessian of the mean KL between adapted policies, both through the
    inner step. The step is given to the optimizer, which must be SGD with a rate of 1. Paper:
    arXiv:1502.05477; MAML's (arXiv:1703.03400) settings.

    Args:
        max_kl: largest mean KL divergence of a step.
        cg_iterations: of the conjugate gradients.
        damping: added to H.
        backtracks: shorter steps that are tried until the loss falls and the KL holds.
        shrink: how much shorter each is.
    """

    def __init__(
        self,
        max_kl: Positive = 0.01,
        cg_iterations: Count = 10,
        damping: NonNegative = 1e-5,
        backtracks: Count = 15,
        shrink: Part = 0.8,
    ) -> None:
        self.max_kl, self.cg_iterations, self.damping = max_kl, cg_iterations, damping
        self.backtracks, self.shrink = backtracks, shrink

    def loss(self, task: Task) -> Callable[[Tensor, Tensor], Tensor]:
        """The task's: minus the mean of ratio x advantage."""
        return task.loss

    def check(self, optimizer: Optimizer) -> None:
        """SGD at a rate of 1 takes the step as it is.

        Raises:
            FewshotError: it is another.
        """
        plain = {"lr": 1.0, "momentum": 0, "weight_decay": 0, "maximize": False}
        group = optimizer.param_groups[0]
        if type(optimizer) is not SGD or any(group[key] != value for key, value in plain.items()):
            raise FewshotError(
                f"TRPO finds the length of its steps itself, but the optimizer is"
                f" {type(optimizer).__name__} with lr {group['lr']}; set optimizer: {{class_path:"
                " SGD, init_args: {lr: 1.0}}"
            )

    def prepare(self, learner: Acts, episodes: "list[Episode]") -> None:
        """The gradient g becomes the step to take away; 0 where no length of it will do."""
        parameters = [p for p in learner.parameters() if p.grad is not None]
        gradient = flat([p.grad for p in parameters if p.grad is not None])
        product = self.kl_product(learner, episodes, parameters)
        direction = conjugate_gradients(product, gradient, self.cg_iterations)
        curvature = direction @ product(direction)
        step = direction * (2 * self.max_kl / curvature.clamp(min=1e-12)).sqrt()
        step = step * self.length(learner, episodes, parameters, step)
        for p, part in zip(parameters, like(step, parameters), strict=True):
            p.grad = part.clone()

    def kl_product(
        self, learner: Acts, episodes: "list[Episode]", parameters: Sequence[Tensor]
    ) -> Callable[[Tensor], Tensor]:
        """The function v -> (H + damping) v; one all-reduce a product."""
        with torch.enable_grad():
            kl = learner.surrogate(episodes)[1]
            slopes = torch.autograd.grad(kl, parameters, create_graph=True, materialize_grads=True)
        slope = flat(slopes)

        def product(v: Tensor) -> Tensor:
            found = torch.autograd.grad(
                slope, parameters, v, retain_graph=True, materialize_grads=True
            )
            return learner.over_ranks(flat(found)) + self.damping * v

        return product

    @torch.no_grad()
    def length(
        self,
        learner: Acts,
        episodes: "list[Episode]",
        parameters: Sequence[Tensor],
        step: Tensor,
    ) -> float:
        """The share of the step that lets the loss fall and the KL hold; 0 where none does."""
        start = [p.clone() for p in parameters]
        before = learner.over_ranks(learner.surrogate(episodes)[0])
        share = 1.0
        try:
            for _ in range(self.backtracks):
                for p, old, part in zip(parameters, start, like(step, parameters), strict=True):
                    p.copy_(old - share * part)
                found = learner.over_ranks(torch.stack(learner.surrogate(episodes)))
                if found[0] < before and found[1] <= self.max_kl:
                    return share
                share *= self.shrink
            return 0.0
        finally:
            for p, old in zip(parameters, start, strict=True):
                p.copy_(old)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int
) -> Tensor:
    """The solution x (n,) of H x = `target`, by so many products with H, which is positive."""
    x, residual, direction = torch.zeros_like(target), target.clone(), target.clone()
    square = residual @ residual
    for _ in range(iterations):
        if square <= 1e-20:
            break
        image = product(direction)
        share = square / (direction @ image)
        x, residual = x + share * direction, residual - share * image
        following = residual @ residual
        direction = residual + following / square * direction
        square = following
    return x


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """The values of tensors as one vector."""
    return torch.cat([tensor.flatten() for tensor in tensors])


def like(vector: Tensor, tensors: Sequence[Tensor]) -> list[Tensor]:
    """A vector's values in the shapes of tensors."""
    parts = torch.split(vector, [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]
