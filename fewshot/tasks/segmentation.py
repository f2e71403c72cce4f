"""Segmentation: the class of every pixel."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from fewshot.arguments import Count
from fewshot.episodes.types import Examples
from fewshot.tasks.base import EpisodeView, Task
from fewshot.tasks.estimates import Estimate, estimate
from fewshot.tasks.masks import (
    IGNORED,
    Iou,
    at_size,
    by_class,
    foreground_background,
    overlaps,
    pixel_loss,
    pooled,
    pooled_ious,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Segmentation(Task):
    """N-way segmentation: logits (n, N+1, h, w) against masks (n, H, W).

    Mask values: 0 is the background, 1..N the classes, 255 ignored.

    Logits are brought to the masks' size bilinearly. The loss is the mean cross-entropy of the
    pixels. Results are sums over ALL episodes, not means of them: `miou`, the mean over the
    benchmark's classes of intersection over union, and `fb_iou`, the mean of the IoU of background
    and of foreground, whatever its class (arXiv:1908.06391, section 4.1). Their intervals are
    those of ratios of sums, `fewshot.tasks.masks.pooled`. The table of episodes keeps the counts of
    pixels.

    A pixel that is wrongly given a class is a false positive wherever it lies, also in an image of
    an N-way episode that does not have the class. PANet's code does not count it there: with `iou`
    ``panet`` neither is it here, so that figures for N > 1 compare with those of that paper. Theirs
    are the higher ones.

    Args:
        way: classes of an episode besides the background.
        classes: the benchmark's classes by name; episodes are about some of them, `Examples.marks`
            says which.
        iou: where false positives count: `everywhere`, or as in PANet's code (`panet`), which
            `fewshot.tasks.masks.overlaps` tells.
    """

    kind: ClassVar[str] = "segmentation"
    such_as: ClassVar[str] = "CamVidDataModule"
    monitor: ClassVar[tuple[str, Literal["min", "max"]]] = ("miou", "max")
    dense: ClassVar[bool] = True
    units: ClassVar[Mapping[str, str]] = {"miou": "%", "fb_iou": "%", "iou": "%"}
    prediction_columns: ClassVar[tuple[str, ...]] = ("pixels", "right", "mask")
    image_folders: ClassVar[Mapping[str, str]] = {"mask": "masks"}

    way: Count = 1
    classes: Sequence[str] = ()
    iou: Iou = "everywhere"

    @property
    def output_size(self) -> int:
        """Logits of the background and of N classes."""
        return self.way + 1

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of the pixels that are not ignored."""
        return pixel_loss(outputs, targets)

    def metrics(self, outputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """The pixels of intersections and unions, `fewshot.tasks.masks.overlaps`."""
        return overlaps(outputs, targets, self.iou)

    def marks(self, query: Examples, outputs: Tensor) -> dict[str, Tensor]:
        """``class_1``..``class_N``: which of the benchmark's classes each label stands for.

        Where the queries are not marked, label n is class n - 1 in all
        episodes.
        """
        marks = query.marks
        if marks is None:
            marks = torch.arange(self.way, device=query.targets.device).expand(
                len(query.targets), -1
            )
        return {f"class_{label}": marks[:, label - 1] for label in range(1, self.way + 1)}

    def scores(self, columns: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """FB-IoU over the meta-batch."""
        intersections, unions = foreground_background(columns)
        return {"fb_iou": pooled_ious(intersections.sum(0), unions.sum(0)).nanmean()}

    def estimates(self, columns: Mapping[str, Tensor]) -> dict[str, Estimate]:
        """``miou`` and ``fb_iou``, also after each inner step and under attack, and class IoUs."""
        counts = ("intersection_", "union_", "class_")
        found = {
            name: estimate(values)
            for name, values in columns.items()
            if not name.startswith(counts)
        }
        start = "union_foreground"
        for suffix in (name.removeprefix(start) for name in columns if name.startswith(start)):
            sums = by_class(columns, self.way, self._classes(columns), suffix)
            found[f"miou{suffix}"] = pooled(*sums)
            found[f"fb_iou{suffix}"] = pooled(*foreground_background(columns, suffix))
            if not suffix:
                found |= self._of_each_class(*sums)
        return found

    def predictions(self, outputs: Tensor, targets: Tensor) -> list[Sequence[Any] | Tensor]:
        """The pixels that are counted, the share of them labelled right, and the mask."""
        masks, counted = self.masks(outputs, targets), targets != IGNORED
        pixels = counted.sum((1, 2))
        right = ((masks == targets) & counted).sum((1, 2)) / pixels.clamp(min=1)
        return [pixels.tolist(), right.tolist(), masks.to(torch.uint8)]

    def masks(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The predicted masks (n, H, W), at the size of the true ones."""
        return at_size(outputs, targets).argmax(1)

    def picture(self, view: EpisodeView) -> "Figure | None":
        """The support with its masks, then queries with the predicted and the true one."""
        if not isinstance(view.episode.query.inputs, Tensor):
            return None
        from fewshot.tasks.drawing.masks import draw_masks

        masks = self.masks(view.outputs(), view.episode.query.targets)
        return draw_masks(view.episode, masks, view.queries)

    def _classes(self, columns: Mapping[str, Tensor]) -> int:
        last = max(int(columns[f"class_{label}"].max()) for label in range(1, self.way + 1))
        return max(len(self.classes), last + 1)

    def _of_each_class(self, intersections: Tensor, unions: Tensor) -> dict[str, Estimate]:
        """``iou_<class>`` of the classes that the episodes were about."""
        names = [*self.classes, *map(str, range(len(self.classes), unions.shape[1]))]
        return {
            f"iou_{names[place]}": pooled(intersections[:, [place]], unions[:, [place]])
            for place in unions.sum(0).nonzero().flatten().tolist()
        }
