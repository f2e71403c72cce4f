"""How much better an action was than expected: baselines and generalised advantages.

Shapes: n episodes, T steps of each, O values of an observation. Steps after an episode's end have a
mask of 0. All functions take no part in a graph and can be vmapped.
"""

import torch
from torch import Tensor

RIDGE = 1e-5
"""Of Duan et al.'s linear baseline (arXiv:1604.06778)."""


def discounted(rewards: Tensor, discount: float) -> Tensor:
    """Sums (n, T) of the rewards to come, each step's worth `discount` of the one before."""
    total, found = torch.zeros_like(rewards[:, 0]), []
    for step in range(rewards.shape[1] - 1, -1, -1):
        total = rewards[:, step] + discount * total
        found.append(total)
    return torch.stack(found[::-1], 1)


def ridge_values(observations: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Values (n, T) of a ridge regression of these `returns` on [s, s^2, t, t^2, t^3, 1].

    t is in hundreds of steps. It is fitted to the episodes at hand, in float64.
    """
    n, horizon = returns.shape
    s = observations.double()
    t = (torch.arange(horizon, device=s.device, dtype=s.dtype) / 100)[None, :, None]
    t = t.expand(n, -1, -1)
    features = torch.cat([s, s.square(), t, t**2, t**3, torch.ones_like(t)], -1).flatten(0, 1)
    counted = features * mask.double().flatten()[:, None]
    penalty = RIDGE * torch.eye(features.shape[1], device=s.device, dtype=s.dtype)
    weights = torch.linalg.solve(
        counted.mT @ features + penalty, counted.mT @ returns.double().flatten()[:, None]
    )
    fitted: Tensor = (features @ weights).view(n, horizon).to(returns)
    return fitted


def advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, discount: float, gae_lambda: float
) -> Tensor:
    """Generalised advantage estimates (n, T) (Schulman et al., arXiv:1506.02438).

    Args:
        rewards: (n, T).
        values: what was expected at each step, (n, T); after the last one 0.
        mask: 1 where a step counts.
        discount: of a step.
        gae_lambda: 1 trusts the rewards alone, 0 the values.
    """
    values, alive = values * mask, mask[:, 1:]
    following = torch.cat([values[:, 1:] * alive, torch.zeros_like(values[:, :1])], 1)
    errors = (rewards + discount * following - values) * mask
    return discounted(errors, discount * gae_lambda)


def standardised(values: Tensor, mask: Tensor) -> Tensor:
    """Values with mean 0 and deviation 1 over the steps that count; the others are 0."""
    count = mask.sum()
    mean = (values * mask).sum() / count
    off = (values - mean) * mask
    return off / ((off.square().sum() / count).sqrt() + 1e-8)
