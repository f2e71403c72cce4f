"""Features by class: pure functions of labels 0..N-1, in operations that `torch.func.vmap` takes.

Shapes: S support examples, N way, D features (or any further axes).
"""

import torch
from torch import Tensor


def membership(labels: Tensor, way: int, dtype: torch.dtype) -> Tensor:
    """1 where an example belongs to a class, else 0: (S, N) of labels (S,)."""
    return (labels[:, None] == torch.arange(way, device=labels.device)).to(dtype)


def class_sums(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """The sum of each class's features, (N, ...), of features (S, ...) with labels (S,)."""
    member = membership(labels, way, features.dtype)
    return (member.T @ features.flatten(1)).view(way, *features.shape[1:])


def class_means(features: Tensor, labels: Tensor, way: int) -> Tensor:
    """The mean feature of each class, (N, ...), of features (S, ...) with labels (S,)."""
    sizes = membership(labels, way, features.dtype).sum(0)
    return class_sums(features, labels, way) / sizes.view(-1, *[1] * (features.dim() - 1))
