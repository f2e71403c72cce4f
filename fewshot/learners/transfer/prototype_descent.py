"""Descent of class prototypes by Adam, for all episodes of a meta-batch at once."""

from collections.abc import Callable

import torch
from torch import Tensor


def tuned(prototypes: Tensor, losses: Callable[[Tensor], Tensor], steps: int, lr: float) -> Tensor:
    """Prototypes (..., N, D) after so many steps of Adam on the loss of each episode.

    Adam moves each number by its own gradients alone, so that episodes do not touch one another.

    Args:
        prototypes: where they start.
        losses: from prototypes (..., N, D) to a loss for each episode (...).
        steps: of Adam.
        lr: its learning rate.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # a clone of what inference mode has made can take part in autograd
        moved = prototypes.detach().clone().requires_grad_()
        optimizer = torch.optim.Adam([moved], lr=lr)
        for _ in range(steps):
            (moved.grad,) = torch.autograd.grad(losses(moved).sum(), moved)
            optimizer.step()
    return moved.detach()


def entropy(probabilities: Tensor) -> Tensor:
    """-sum p log p of probabilities (..., N), shape (...)."""
    return -(probabilities * (probabilities + 1e-12).log()).sum(-1)


def support_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy (...) of logits (..., S, N), one-hot labels (..., S, N)."""
    return -(labels * logits.log_softmax(-1)).sum(-1).mean(-1)
