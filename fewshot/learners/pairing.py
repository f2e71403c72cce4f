"""Which examples of two tasks are mixed with one another, and which tasks can be."""

import numpy as np
import torch
from torch import Tensor

from fewshot.episodes.types import Episode, MetaBatch
from fewshot.errors import FewshotError


def check(batch: MetaBatch, images: bool = False) -> None:
    """Check that episodes of classes can be mixed.

    Args:
        batch: the episodes.
        images: whether their inputs must be images.

    Raises:
        FewshotError: they cannot.
    """
    check_alike(batch)
    way = int(batch.support.targets.max()) + 1
    for name, (inputs, targets, _) in zip(Episode._fields, batch.stacked, strict=True):
        if (
            not isinstance(inputs, Tensor)
            or targets.dim() != 2
            or (inputs.dim() != 5 if images else not inputs.is_floating_point())
        ):
            what = "pastes boxes of images" if images else "mixes images or vectors"
            raise FewshotError(
                f"mlti {what} of classes, but this benchmark's inputs or targets are others; leave"
                " mlti out"
            )
        sizes = torch.stack([(targets == label).sum(1) for label in range(way)])  # (N, B)
        if (sizes * way != targets.shape[1]).any():
            raise FewshotError(
                f"mlti pairs the examples of classes, but the {name} set of an episode has more of"
                " some classes than of others, or of none; leave out mlti, or what makes them"
                " unequal (unequal_shots, nota_rate)"
            )


def check_regression(batch: MetaBatch) -> None:
    """Check that episodes of functions can be mixed.

    Raises:
        FewshotError: they cannot.
    """
    check_alike(batch)
    for part in batch.stacked:
        if not isinstance(part.inputs, Tensor):
            raise FewshotError(
                "mlti mixes vectors, but this benchmark's inputs are others; leave mlti out"
            )


def check_alike(batch: MetaBatch) -> None:
    """Check that there are several episodes, of one way and shape.

    Raises:
        FewshotError: there are not.
    """
    if len(batch.parts) != 1:
        raise FewshotError(
            "mlti mixes episodes of one way and shape, but those of this benchmark differ; leave"
            " mlti out, or fix way and shot (leave out ways and shots)"
        )
    if batch.size < 2:
        raise FewshotError(
            "mlti mixes the tasks of a meta-batch, but it has one alone; set meta_batch_size to 2"
            " or more for each device, or leave mlti out"
        )


def partners(first: Tensor, second: Tensor, order: Tensor) -> Tensor:
    """The place (n,) of each example's partner: example i of class j has i of class order[j].

    Args:
        first: the labels (n,) of the examples.
        second: those of the partners.
        order: (N,), on the CPU.
    """
    joins = torch.argsort(order).to(second.device)[second]
    partner = torch.empty_like(joins)
    partner[first.argsort(stable=True)] = joins.argsort(stable=True)
    return partner


def box(rng: np.random.Generator, lam: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box of 1 - lam of the area around a random pixel, cut off outside."""
    side = (1 - lam) ** 0.5
    spans = []
    for length in (height, width):
        centre, half = int(rng.integers(length)), int(length * side) // 2
        spans.append(slice(max(centre - half, 0), min(centre + half, length)))
    return spans[0], spans[1]
