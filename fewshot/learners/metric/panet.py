"""PANet: prototype alignment for segmentation (Wang et al., arXiv:1908.06391).

Shapes: S support images, Q queries, N way, C channels, h and w of the feature maps, H and W of the
masks.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.arguments import NonNegative, Positive
from fewshot.backbones.base import Backbone, maps_of, needed_map_shape
from fewshot.engine.modes import evaluation_mode
from fewshot.episodes.types import Episode, Examples, Inputs
from fewshot.learners.embedding import EmbeddingLearner, at_least_float32, full_precision
from fewshot.learners.outcome import Outcome
from fewshot.tasks import Segmentation
from fewshot.tasks.masks import IGNORED, at_size, cell_weights


class PANet(EmbeddingLearner):
    """PANet: a pixel's class has the nearest mean support feature, background included.

    A class is the mean feature of its pixels in each support image, averaged over the images; the
    background is a class of its own. A query pixel's logits are the cosine similarities to them
    times `scale`. In training the queries, as they were segmented, must segment the support in turn
    (the alignment loss). Takes episodes of any way. Paper: arXiv:1908.06391.

    Args:
        backbone: the network, with feature maps (`maps`).
        scale: of the cosine similarity (the paper: 20).
        alignment: weight of the alignment loss in training; 0 leaves it out.
        **kwargs: arguments of `MetaLearner`.

    Raises:
        FewshotError: the task is no segmentation, the backbone has no maps, or a number is out of
            range.
    """

    takes = Segmentation
    embeds_maps = True

    def __init__(
        self,
        backbone: Backbone | nn.Module,
        scale: Positive = 20.0,
        alignment: NonNegative = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(backbone, **kwargs)
        needed_map_shape(self.backbone, "PANet")
        self.scale, self.alignment = scale, alignment

    def embed(self, inputs: Inputs) -> Tensor:
        """Feature maps (n, C, h, w) of images (n, ...)."""
        return maps_of(self.backbone, inputs)

    def adapt(self, support: Examples) -> Tensor:
        """The prototypes (N+1, C) of one support set, of any way.

        Batch normalisation by the running averages.
        """
        way = int(support.targets[support.targets != IGNORED].max())
        with evaluation_mode(self):
            features = at_least_float32(self.embed(support.inputs))
            with full_precision(features):
                return prototypes(features, support.targets, way)

    def predict(self, adapted: Tensor, inputs: Inputs) -> Tensor:
        """Logits (n, N+1, H, W) of images (n, ..., H, W)."""
        assert isinstance(inputs, Tensor)
        with evaluation_mode(self):
            features = at_least_float32(self.embed(inputs))
            with full_precision(features):
                return at_size(similarity(adapted, features, self.scale), inputs)

    def run(self, episodes: Episode, training: bool) -> Iterator[Outcome]:
        """Embed the meta-batch in one pass; compare all query pixels with prototypes at once."""
        support, query = self.embed_meta_batch(episodes, training)
        masks = episodes.support.targets
        with full_precision(support):
            means = torch.func.vmap(partial(prototypes, way=self.task.output_size - 1))(
                support, masks
            )
            logits = torch.func.vmap(partial(similarity, scale=self.scale))(means, query)
            outcome = self.judged(logits, episodes.query.targets)
            if training and self.alignment:
                aligned = torch.func.vmap(partial(alignment_loss, scale=self.scale))(
                    query, logits, support, masks
                )
                outcome = outcome._replace(loss=outcome.loss + self.alignment * aligned)
        yield outcome


def prototypes(features: Tensor, masks: Tensor, way: int) -> Tensor:
    """The mean feature of background and classes, (N+1, C), of maps (S, C, h, w): equation 1.

    The masks are (S, H, W).

    Each image's mean counts the same. A class that no image has is zero, similar to nothing.
    """
    found = []
    for label in range(way + 1):
        weights = cell_weights((masks == label).to(features.dtype), features.shape[-2:])
        pixels = weights.sum((-2, -1))
        means = torch.einsum("schw,shw->sc", features, weights) / pixels.clamp(min=1)[:, None]
        found.append(means.sum(0) / (pixels > 0).sum().clamp(min=1))
    return torch.stack(found)


def similarity(means: Tensor, features: Tensor, scale: float) -> Tensor:
    """`scale` times the cosine of maps (n, C, h, w) with prototypes: logits (n, N+1, h, w).

    Prototypes are (N+1, C).
    """
    return scale * torch.einsum(
        "kc,nchw->nkhw", F.normalize(means, dim=-1), F.normalize(features, dim=1)
    )


def alignment_loss(
    query: Tensor, logits: Tensor, support: Tensor, masks: Tensor, scale: float
) -> Tensor:
    """The loss of segmenting the support by queries with their predicted masks: equation 7.

    Each support image is segmented into background and its own class. Classes that were predicted
    nowhere have no prototype and add nothing.

    Args:
        query: maps (Q, C, h, w).
        logits: of the queries (Q, N+1, h, w).
        support: maps (S, C, h, w).
        masks: of the support (S, H, W).
        scale: of the cosine similarity.
    """
    predicted, way = logits.argmax(1), logits.shape[1] - 1
    cells = torch.stack([(predicted == label).to(query.dtype) for label in range(way + 1)])
    sizes = cells.sum((1, 2, 3))
    means = torch.einsum("qchw,kqhw->kc", query, cells) / sizes.clamp(min=1)[:, None]
    total = query.new_zeros(())
    for label in range(1, way + 1):
        two = at_size(similarity(means[[0, label]], support, scale), masks)
        own = (masks == label).long()
        losses = F.cross_entropy(two, own, reduction="none")
        counted = (masks == 0) | (masks == label)
        by_image = (losses * counted).sum((1, 2)) / counted.sum((1, 2)).clamp(min=1)
        total = total + (by_image * own.amax((1, 2)) * (sizes[label] > 0)).sum()
    return total / len(support)
