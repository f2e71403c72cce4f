"""Segmentation: pixel logits, overlap of predicted and true masks, IoU pooled over episodes.

Shapes: n or S images, N way (labels 0 for the background, 1..N for the episode's classes), H and W
of the masks, h and w of the maps, which may be fewer; E episodes of a table.
"""

from collections.abc import Mapping
from typing import Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from fewshot.tasks.estimates import Estimate
from fewshot.tasks.intervals import LEAST, precision, t95

Iou: TypeAlias = Literal["everywhere", "panet"]
IGNORED = 255
"""The label of pixels that neither train nor count."""


def at_size(maps: Tensor, targets: Tensor) -> Tensor:
    """Maps (n, C, h, w) resized to masks (n, H, W) bilinearly, as the field does: (n, C, H, W)."""
    if maps.shape[-2:] == targets.shape[-2:]:
        return maps
    return F.interpolate(maps, targets.shape[-2:], mode="bilinear", align_corners=False)


def cell_weights(masks: Tensor, size: tuple[int, ...]) -> Tensor:
    """How much each cell of a map has of a mask, (S, h, w), for masks (S, H, W) of 0 and 1.

    To bring maps to the masks' size, bilinearly, and sum them over the masks' pixels (PANet's
    masked average pooling) is to sum the maps' cells with these weights, exactly, but without maps
    of that size.
    """
    rows, columns = (
        F.interpolate(
            torch.eye(cells, dtype=masks.dtype, device=masks.device)[None], pixels, mode="linear"
        )[0]
        for cells, pixels in zip(size, masks.shape[-2:], strict=True)
    )
    return rows @ masks @ columns.T


def pixel_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of logits (n, N+1, h, w) on masks' (n, H, W) unignored pixels, else 0."""
    counted = targets != IGNORED
    labels = torch.where(counted, targets, 0)
    # written out: cross_entropy's own mean is NaN where every pixel is ignored
    losses = F.cross_entropy(at_size(logits, targets), labels, reduction="none")
    return (losses * counted).sum() / counted.sum().clamp(min=1)


def overlaps(logits: Tensor, targets: Tensor, iou: Iou = "everywhere") -> dict[str, Tensor]:
    """Pixels in the intersection and in the union of predicted and true masks.

    The ignored ones are in neither.

    Args:
        logits: (n, N+1, h, w), brought to the size of the masks.
        targets: masks (n, H, W) of labels 0..N and `IGNORED`.
        iou: ``everywhere`` counts every pixel that is given a label, in whatever image. ``panet``
            counts a label's pixels in those images alone that truly have it, so that what is
            wrongly given it elsewhere costs nothing, and takes the foreground for the sum of the
            labels, so that labels taken for each other count as errors of it (arXiv:1908.06391, as
            in its authors' code).

    Returns:
        ``intersection_<region>`` and ``union_<region>``, scalars: the regions are the labels
        ``1``..``N``, the ``foreground`` (all of them as one) and the ``background``.
    """
    predicted, counted = at_size(logits, targets).argmax(1), targets != IGNORED
    labels = {str(label): label for label in range(1, logits.shape[1])}
    found: dict[str, Tensor] = {}
    for name in ("background", "foreground", *labels):
        one, other = (
            mask == labels[name] if name in labels else (mask > 0) == (name == "foreground")
            for mask in (predicted, targets)
        )
        of = counted
        if iou == "panet":
            of = counted & (other & counted).flatten(1).any(1)[:, None, None]
        found[f"intersection_{name}"] = (one & other & of).sum().float()
        found[f"union_{name}"] = ((one | other) & of).sum().float()
    if iou == "panet":
        for part in ("intersection", "union"):
            found[f"{part}_foreground"] = torch.stack(
                [found[f"{part}_{label}"] for label in labels]
            ).sum(0)
    return found


def pooled_ious(intersections: Tensor, unions: Tensor) -> Tensor:
    """Intersection over union (..., C) of sums over episodes; NaN where a class was never there."""
    return torch.where(unions > 0, intersections / unions.clamp(min=1), torch.nan)


def foreground_background(columns: Mapping[str, Tensor], suffix: str = "") -> tuple[Tensor, Tensor]:
    """Intersections and unions (E, 2) of foreground and background, for FB-IoU."""
    pairs = (
        torch.stack(
            [columns[f"{part}_{region}{suffix}"] for region in ("foreground", "background")], 1
        ).double()
        for part in ("intersection", "union")
    )
    intersections, unions = pairs
    return intersections, unions


def by_class(
    columns: Mapping[str, Tensor], way: int, classes: int, suffix: str = ""
) -> tuple[Tensor, Tensor]:
    """Intersections and unions (E, classes): what each episode adds to the classes it is about.

    Args:
        columns: `overlaps` of E episodes, and ``class_<label>``, the class that each label stands
            for, all (E,).
        way: N.
        classes: how many the benchmark has.
        suffix: of the columns' names.
    """
    sums = []
    for part in ("intersection", "union"):
        total = torch.zeros(len(columns["class_1"]), classes, dtype=torch.float64)
        for label in range(1, way + 1):
            place = columns[f"class_{label}"].long()[:, None].cpu()
            total.scatter_add_(1, place, columns[f"{part}_{label}{suffix}"].double()[:, None].cpu())
        sums.append(total)
    return sums[0], sums[1]


def pooled(intersections: Tensor, unions: Tensor) -> Estimate:
    """Mean over classes of the IoU pooled over episodes, with its 95 % confidence interval.

    A class's IoU is the mean of its episodes' weighted by their unions, so that its residuals are
    those of a ratio estimator. An episode's residuals of all classes belong together. The t is
    Student's; its degrees of freedom are Satterthwaite's over the classes, at most those of the
    episodes. NaN where a class is in one or two episodes, whose spread is unknown; classes of no
    episode are left out.

    Args:
        intersections: pixels (E, classes).
        unions: pixels (E, classes).
    """
    intersections, unions = intersections.double().cpu(), unions.double().cpu()
    there = unions.sum(0) > 0
    intersections, unions = intersections[:, there], unions[:, there]
    ious = pooled_ious(intersections.sum(0), unions.sum(0))
    mean = ious.mean().item()
    if not len(ious) or (unions > 0).sum(0).min() < LEAST:
        return Estimate(mean, torch.nan)
    known = precision(unions / unions.sum(0))
    residuals = (intersections - ious * unions) / unions.sum(0) * known.correction.sqrt()
    of_class = residuals.square().sum(0)
    degrees = (of_class.sum().square() / (of_class.square() / known.degrees).sum()).nan_to_num(1.0)
    deviation = residuals.mean(1).square().sum().sqrt().item()
    return Estimate(mean, t95(min(degrees.item(), len(unions) - 1.0)) * deviation)
