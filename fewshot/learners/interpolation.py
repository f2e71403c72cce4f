"""Tasks between training tasks: MLTI by CutMix (Yao et al., arXiv:2106.02695)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fewshot.backbones.base import Backbone
from fewshot.episodes.types import Episode, Examples, MetaBatch, episode, stack
from fewshot.errors import FewshotError
from fewshot.learners.embedding_once import EmbedsOnce

OTHER = 0.75
"""The probability that an episode is mixed with the next; otherwise it is mixed with itself."""
ADDRESS = 5  # behind the seed and an episode's number: no other generator has three numbers so


class InterpolatesTasks(EmbedsOnce):
    """A learner that may train on mixtures of a meta-batch's tasks.

    Args:
        backbone: the network from inputs to features.
        mlti: mix training episodes of images: a box of each image is that of an image of the next
            episode of the meta-batch (of the rank's share of it), or with probability 1/4 of the
            same one, a class's of another class (MLTI, arXiv:2106.02695). Helps where training
            tasks are few.
        **kwargs: arguments of `EmbedsOnce`.
    """

    def __init__(self, backbone: Backbone | nn.Module, mlti: bool = False, **kwargs: Any) -> None:
        super().__init__(backbone, **kwargs)
        if mlti and self.trains_on != "episodes":
            raise FewshotError(
                f"{type(self).__name__} trains on no episodes, which mlti mixes; leave mlti out"
            )
        self.mlti = mlti

    def augmented(self) -> bool:
        """Whether training's inputs are changed at random, which mixing does."""
        return self.mlti or super().augmented()

    def as_batch(self, batch: Any) -> Any:
        """What a loader gave, its episodes mixed where `mlti` says so."""
        batch = super().as_batch(batch)
        if not self.mlti:
            return batch
        if batch.numbers is not None:
            numbers = batch.numbers.tolist()
        else:  # a loader of one's own: the place in the run tells episodes apart
            trainer, size = self.trainer, batch.size
            first = (trainer.global_step * trainer.world_size + trainer.global_rank) * size
            numbers = list(range(first, first + size))
        return mixed(batch, [np.random.default_rng([self.seed, n, ADDRESS]) for n in numbers])


def mixed(batch: MetaBatch, rngs: list[np.random.Generator]) -> MetaBatch:
    """Each of B episodes mixed with the next or with itself, as its generator says.

    Raises:
        FewshotError: the episodes differ in shape or way, or their inputs are no images.
    """
    check(batch)
    stacked = batch.stacked
    tasks = [episode(stacked, i) for i in range(batch.size)]
    return batch._replace(
        parts=[
            stack(
                [
                    cut_and_paste(rng, one, following if rng.random() < OTHER else one)
                    for rng, one, following in zip(rngs, tasks, [*tasks[1:], tasks[0]], strict=True)
                ]
            )
        ]
    )


def check(batch: MetaBatch) -> None:
    """Check that episodes can be mixed.

    Raises:
        FewshotError: they cannot.
    """
    if len(batch.parts) != 1:
        raise FewshotError(
            "mlti mixes episodes of one way and shape, but those of this benchmark differ; leave"
            " mlti out, or fix way and shot (leave out ways and shots)"
        )
    way = int(batch.stacked.support.targets.max()) + 1
    for name, (inputs, targets, _) in zip(Episode._fields, batch.stacked, strict=True):
        if not isinstance(inputs, Tensor) or inputs.dim() != 5 or targets.dim() != 2:
            raise FewshotError(
                "mlti pastes boxes of images of classes, but this benchmark's inputs or targets are"
                " others; leave mlti out"
            )
        sizes = torch.stack([(targets == label).sum(1) for label in range(way)])  # (N, B)
        if (sizes * way != targets.shape[1]).any():
            raise FewshotError(
                f"mlti pairs the examples of classes, but the {name} set of an episode has more of"
                " some classes than of others, or of none; leave out mlti, or what makes them"
                " unequal (unequal_shots, nota_rate)"
            )


def cut_and_paste(rng: np.random.Generator, first: Episode, second: Episode) -> Episode:
    """The first task with a box of area 1 - lam of the second's images, lam ~ Beta(2, 2).

    Class j is joined by a class of the second drawn for it; the box is one for support and query,
    its centre anywhere, cut off at the border. The labels are the first's.
    """
    order = torch.from_numpy(rng.permutation(int(first.support.targets.max()) + 1))
    images = first.query.inputs
    assert isinstance(images, Tensor)
    rows, columns = box(rng, rng.beta(2, 2), *images.shape[-2:])
    return Episode(
        *(_pasted(*pair, order, rows, columns) for pair in zip(first, second, strict=True))
    )


def box(rng: np.random.Generator, lam: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns of a box of 1 - lam of the area around a random pixel, cut off outside."""
    side = (1 - lam) ** 0.5
    spans = []
    for length in (height, width):
        centre, half = int(rng.integers(length)), int(length * side) // 2
        spans.append(slice(max(centre - half, 0), min(centre + half, length)))
    return spans[0], spans[1]


def _pasted(
    first: Examples, second: Examples, order: Tensor, rows: slice, columns: slice
) -> Examples:
    """Examples of class j with the box of as many examples of class order[j]."""
    assert isinstance(first.inputs, Tensor)
    assert isinstance(second.inputs, Tensor)
    # example i of class j beside example i of class order[j], wherever they stand
    joins = torch.argsort(order).to(second.targets.device)[second.targets]
    partner = torch.empty_like(joins)
    partner[first.targets.argsort(stable=True)] = joins.argsort(stable=True)
    images = first.inputs.clone()
    images[..., rows, columns] = second.inputs[partner][..., rows, columns]
    return first._replace(inputs=images)
