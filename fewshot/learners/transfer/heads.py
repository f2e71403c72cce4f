"""Linear classifiers of features, fitted for all episodes of a meta-batch at once.

Gradients written out.

Shapes: "..." is the axis B of a meta-batch, or nothing; S support examples, D features, N classes.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.engine.inner_loop import Weights

NORM_EPSILON = 1e-5  # added to the length of a feature by the code of arXiv:1904.04232

Gradient = Callable[[Weights, Tensor, Tensor], Weights]
"""Weights, features (..., b, D), one-hot labels (..., b, N) to mean cross-entropy's gradient."""


class SGD(NamedTuple):
    """Settings of `torch.optim.SGD`, and how the mini-batches go through the support.

    Args:
        lr: the learning rate.
        momentum: share of the previous direction.
        dampening: what a gradient's weight in the direction lacks of 1, but for the first.
        weight_decay: multiple of the weights that is added to their gradient.
        epochs: passes over the support.
        batch_size: support examples of a mini-batch; the last of a pass may be smaller.
    """

    lr: float = 0.01
    momentum: float = 0.9
    dampening: float = 0.9
    weight_decay: float = 1e-3
    epochs: int = 100
    batch_size: int = 4


def descend(
    gradient: Gradient, weights: Weights, features: Tensor, labels: Tensor, way: int, sgd: SGD
) -> Weights:
    """The weights after `torch.optim.SGD` on mini-batches of the support.

    The orders of the mini-batches are a function of the support's size alone.

    Args:
        gradient: of the mean loss of a mini-batch.
        weights: where the descent starts, each (..., *shape).
        features: (..., S, D).
        labels: (..., S) in 0..`way`-1.
        way: N.
        sgd: the settings.
    """
    targets = F.one_hot(labels, way).to(features.dtype)
    weights = {name: weight.clone() for name, weight in weights.items()}
    buffers: Weights = {}
    for order in orders(labels.shape[-1], sgd.epochs):
        rows = order.to(labels.device)
        x, y = features.index_select(-2, rows), targets.index_select(-2, rows)
        for start in range(0, len(rows), sgd.batch_size):
            batch = slice(start, start + sgd.batch_size)
            for name, direction in gradient(weights, x[..., batch, :], y[..., batch, :]).items():
                direction = direction.add(weights[name], alpha=sgd.weight_decay)
                if name in buffers:  # the first direction is the gradient undamped
                    buffers[name].mul_(sgd.momentum).add_(direction, alpha=1 - sgd.dampening)
                else:
                    buffers[name] = direction
                weights[name].sub_(buffers[name], alpha=sgd.lr)
    return weights


def orders(size: int, epochs: int) -> Tensor:
    """The order (epochs, size) in which each pass takes the examples; always the same."""
    places = np.tile(np.arange(size), (epochs, 1))
    return torch.from_numpy(np.random.default_rng(0).permuted(places, axis=1))


def with_ones(features: Tensor) -> Tensor:
    """Features (..., n, D) with a last column of ones, whose weight is the bias."""
    return F.pad(features, (0, 1), value=1.0)


def linear_logits(weights: Weights, features: Tensor) -> Tensor:
    """Logits (..., n, N) of features with ones (..., n, D + 1) by `weight` (..., N, D + 1)."""
    return features @ weights["weight"].mT


def linear_gradient(weights: Weights, features: Tensor, targets: Tensor) -> Weights:
    """The gradient of the mean cross-entropy of `linear_logits`."""
    return {"weight": _excess(linear_logits(weights, features), targets).mT @ features}


def unit(features: Tensor) -> Tensor:
    """X / (||x|| + epsilon) of features (..., D)."""
    norm: Tensor = torch.linalg.vector_norm(features, dim=-1, keepdim=True)
    return features / (norm + NORM_EPSILON)


def cosine_logits(weights: Weights, features: Tensor, scale: float) -> Tensor:
    """Logits scale * g_c cos(x, v_c), (..., n, N).

    Args:
        weights: `direction` v (..., N, D) and `length` g (..., N, 1): the weight g v / ||v||.
        features: of unit length, (..., n, D).
        scale: multiplies all.
    """
    return scale * (features @ F.normalize(weights["direction"], dim=-1).mT) * weights["length"].mT


def cosine_gradient(scale: float) -> Gradient:
    """The gradient of the mean cross-entropy of `cosine_logits`."""

    def gradient(weights: Weights, features: Tensor, targets: Tensor) -> Weights:
        norm = torch.linalg.vector_norm(weights["direction"], dim=-1, keepdim=True)
        v = weights["direction"] / norm
        logits = scale * (features @ v.mT) * weights["length"].mT
        whole = scale * (_excess(logits, targets).mT @ features)  # of the weight g v / ||v||
        along = (whole * v).sum(-1, keepdim=True)
        return {"direction": (whole - along * v) * (weights["length"] / norm), "length": along}

    return gradient


def _excess(logits: Tensor, targets: Tensor) -> Tensor:
    """(softmax - one-hot) / n: the mean cross-entropy's gradient by the logits (..., n, N)."""
    return (logits.softmax(-1) - targets) / logits.shape[-2]
