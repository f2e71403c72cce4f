"""Gradients against central differences along a random direction in the space of all parameters."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


def assert_slope(
    loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], size: float
) -> None:
    """The gradient of `loss` is its slope, by steps of `size` times a standard normal vector."""
    gradients = torch.autograd.grad(loss(), parameters)
    steps = [size * torch.randn_like(p) for p in parameters]
    ends = []
    for sign in (1, -2):  # from one side of the parameters to the other
        with torch.no_grad():
            for parameter, step in zip(parameters, steps, strict=True):
                parameter.add_(sign * step)
            ends.append(loss())
    slope = torch.stack([(g * s).sum() for g, s in zip(gradients, steps, strict=True)]).sum()
    torch.testing.assert_close((ends[0] - ends[1]) / 2, slope, rtol=1e-4, atol=0)
