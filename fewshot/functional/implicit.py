"""Weights whose gradient is that of the solution they are, whatever path led there."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fewshot.engine.conjugate_gradients import conjugate_gradients
from fewshot.engine.inner_loop import Weights
from fewshot.errors import FewshotError


def implicit(
    loss: Callable[[Weights], Tensor],
    weights: Mapping[str, Tensor],
    cg_steps: int = 10,
    damping: float = 0.0,
) -> Weights:
    """The `weights`, with the gradient of where `loss` is least, by the implicit function theorem.

    For x that `loss` reads besides the weights, dw/dx = -(H + damping I)^-1 d2 loss / dw dx, with
    the Hessian H at the weights. Memory does not grow with the steps that led there. It is exact
    where the loss's gradient is 0 and conjugate gradients have converged. Not under ``torch.vmap``.

    The loss (w - x)^2 + w^2 is least at w = x / 2, where dw/dx = 1/2:

    ```python
    >>> x = torch.tensor(4.0, requires_grad=True)
    >>> found = implicit(lambda now: (now["w"] - x) ** 2 + now["w"] ** 2, {"w": torch.tensor(2.0)})
    >>> torch.autograd.grad(found["w"], x)
    (tensor(0.5000),)
    ```

    Args:
        loss: a scalar of the weights, and of the tensors that get the gradient.
        weights: where it is least, by descent without a graph, such as `gradient_steps` with
            `first_order`.
        cg_steps: iterations of conjugate gradients.
        damping: added to the Hessian: steadier, less exact.

    Raises:
        FewshotError: `cg_steps` is below 1.
    """
    if cg_steps < 1:
        raise FewshotError(f"cg_steps is {cg_steps}; set cg_steps >= 1")
    at = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    with torch.enable_grad():
        slopes = torch.autograd.grad(
            loss(at), list(at.values()), create_graph=True, materialize_grads=True
        )
    found = _Solution.apply(tuple(at.values()), cg_steps, damping, *slopes)
    return dict(zip(at, found, strict=True))


class _Solution(torch.autograd.Function):
    """Of the gradient at the solution: gives the solution, goes back by the inverse Hessian."""

    @staticmethod
    def forward(
        ctx: Any, at: tuple[Tensor, ...], cg_steps: int, damping: float, *slopes: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.at, ctx.cg_steps, ctx.damping = at, cg_steps, damping
        ctx.slopes = slopes
        return tuple(weight.detach().clone() for weight in at)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        sizes = [weight.numel() for weight in ctx.at]

        def parts(vector: Tensor) -> list[Tensor]:
            return [p.view_as(w) for p, w in zip(torch.split(vector, sizes), ctx.at, strict=True)]

        def product(vector: Tensor) -> Tensor:
            found = torch.autograd.grad(
                curved, ctx.at, parts_of(parts(vector)), retain_graph=True, materialize_grads=True
            )
            curvature = torch.cat([one.flatten() for one in found])
            return curvature + float(ctx.damping) * vector

        used = [i for i, slope in enumerate(ctx.slopes) if slope.requires_grad]
        curved = [ctx.slopes[i] for i in used]

        def parts_of(values: list[Tensor]) -> list[Tensor]:
            return [values[i] for i in used]

        whole = torch.cat([gradient.flatten() for gradient in gradients])
        solution = conjugate_gradients(product, whole, ctx.cg_steps)
        return None, None, None, *(-part for part in parts(solution))
