"""Exact Gaussian processes, squared exponential kernel: a function known from some of its points.

Shapes: ... any leading axes, K seen points, n new points, D coordinates of a point, T values at it.
"""

import torch
from torch import Tensor

JITTER = 1e-9
"""Share of the variance added to a covariance's diagonal, to be positive definite in float64."""


def rbf_kernel(first: Tensor, second: Tensor, length_scale: float, variance: float) -> Tensor:
    """Variance * exp(-|a - b|^2 / (2 length_scale^2)), shape (..., K, n).

    Points are (..., K, D) and (..., n, D).
    """
    squares = (first[..., :, None, :] - second[..., None, :, :]).square().sum(-1)
    return variance * torch.exp(-0.5 * squares / length_scale**2)


def posterior(
    x: Tensor, y: Tensor, x_new: Tensor, length_scale: float, variance: float, noise: float
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (..., n, T) of noisy observations at `x_new`, given those at `x`.

    In float64.

    Each new point is judged by itself: these are the marginals of the joint posterior, the
    observation noise included, which is what a conditional neural process predicts. The values of a
    point are independent. Paper: Rasmussen & Williams 2006, equations 2.25 and 2.26.

    Args:
        x: seen points (..., K, D).
        y: their values (..., K, T).
        x_new: new points (..., n, D).
        length_scale: of the kernel, in the unit of `x`.
        variance: of the function's values.
        noise: standard deviation of the observation noise.
    """
    x, y, x_new = x.double(), y.double(), x_new.double()
    on_diagonal = noise**2 + JITTER * variance
    kernel = rbf_kernel(x, x, length_scale, variance)
    factor = torch.linalg.cholesky(
        kernel + on_diagonal * torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    )
    cross = torch.linalg.solve_triangular(
        factor, rbf_kernel(x, x_new, length_scale, variance), upper=False
    )
    mean = cross.mT @ torch.linalg.solve_triangular(factor, y, upper=False)
    deviation = (variance - cross.square().sum(-2)).clamp(min=0).add(on_diagonal).sqrt()  # (..., n)
    return mean, deviation[..., None].expand_as(mean)
