"""UMTRA's benchmark: unlabelled examples label themselves (arXiv:1811.11819)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from fewshot.arguments import Share
from fewshot.datamodules.base import EpisodicDataModule
from fewshot.datamodules.text import TextDataModule
from fewshot.datamodules.unlabelled import UnlabelledDataModule
from fewshot.datasets.preprocessing import as_float
from fewshot.engine.views import Views
from fewshot.episodes.class_dataset import ClassDataset
from fewshot.episodes.streams import STAGES, ExampleStream
from fewshot.episodes.types import ExampleBatch, Inputs
from fewshot.episodes.unlabelled import Change, SelfLabelledTasks
from fewshot.errors import FewshotError

DRAWINGS = Views(area=0.5, rotate=10.0, shift=2)
PHOTOS = Views(area=0.2, flip=True, brightness=0.4, contrast=0.4, saturation=0.4)
WORD_DROPOUT = 0.1


class SelfLabelledDataModule(UnlabelledDataModule):
    """SelfLabelled: without labels: N examples are N classes, the queries other views of each.

    Every learner works on it. Learners without episodes tell all examples apart. Queries of texts
    lack some words (random deletion, arXiv:1901.11196). What is drawn for an episode is a function
    of the seed and its number. Paper: arXiv:1811.11819 (UMTRA).

    Args:
        views: of the queries of images. None: crops, shifts and turns of drawings in bright ink;
            crops, mirrored, with other colours, of photos.
        support_views: of the support too, such as ``{area: 0.2, flip: true}``; None: examples as
            they are (of several shots the first).
        word_dropout: share of the words that queries of texts lack.
        **kwargs: arguments of `UnlabelledDataModule`.
    """

    benchmark: ClassVar[str] = "SelfLabelled"

    def __init__(
        self,
        views: Views | None = None,
        support_views: Views | None = None,
        word_dropout: Share = WORD_DROPOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        text = isinstance(self.source, TextDataModule)
        if text and (views or support_views):
            raise FewshotError("views are of images, the examples are texts; set word_dropout")
        if text and not word_dropout:
            raise FewshotError(
                "word_dropout is 0, so that each query is its own support; set it above 0"
            )
        self.views = views or usual_views(self.source)
        self.support_views, self.word_dropout = support_views, word_dropout

    @property
    def change(self) -> Change:
        """What makes the views of queries."""
        if isinstance(self.source, TextDataModule):
            return WordDropout(self.word_dropout)
        return ImageViews(self.views)

    def training_tasks(self) -> SelfLabelledTasks:
        """Tasks of the training examples."""
        return self._tasks_of(self.pool)

    def held_out_tasks(self, examples: ClassDataset) -> SelfLabelledTasks:
        """Tasks of held out examples."""
        return self._tasks_of(examples)

    def _tasks_of(self, examples: ClassDataset) -> SelfLabelledTasks:
        sizes = self.train_way, self.train_shot, self.train_queries
        support = None if self.support_views is None else ImageViews(self.support_views)
        return SelfLabelledTasks(examples, *sizes, self.change, support)

    def example_stream(self) -> ExampleStream:
        """Views of the training examples."""
        return ViewStream(self.pool, self.seed, self.change)

    def protocol(self) -> dict[str, Any]:
        """The facts that stand beside every result, the views among them."""
        if isinstance(self.source, TextDataModule):
            return {**super().protocol(), "word_dropout": self.word_dropout}
        support = {"support_views": vars(self.support_views)} if self.support_views else {}
        return {**super().protocol(), "views": vars(self.views), **support}


def usual_views(benchmark: EpisodicDataModule) -> Views:
    """Views of a benchmark's images that mostly leave the class as it is."""
    return DRAWINGS if getattr(benchmark, "bright_ink", False) else PHOTOS


def usual_change(benchmark: EpisodicDataModule) -> Change:
    """What makes views of a benchmark's images or texts, where nobody says how."""
    if isinstance(benchmark, TextDataModule):
        return WordDropout(WORD_DROPOUT)
    return ImageViews(usual_views(benchmark))


class ImageViews:
    """Views of stored images (uint8).

    Args:
        views: what is drawn.
    """

    def __init__(self, views: Views) -> None:
        self.views = views

    def __call__(self, inputs: Inputs, rngs: Sequence[np.random.Generator]) -> Inputs:
        """Views (B, n, C, H, W) uint8 of images, n for each generator."""
        assert isinstance(inputs, Tensor)
        drawn = [self.views.draw(rng, inputs.shape[1]) for rng in rngs]
        every = [torch.cat(column) for column in zip(*drawn, strict=True)]
        images = as_float(inputs.flatten(0, 1))
        assert isinstance(images, Tensor)
        changed = self.views(images, (every[0], every[1], every[2]))
        return (changed * 255).round().to(torch.uint8).view(inputs.shape)


class WordDropout:
    """Texts without some of their words: random deletion of EDA (arXiv:1901.11196).

    Args:
        share: how likely a word is left out; one word stays in any case.
    """

    def __init__(self, share: float) -> None:
        self.share = share

    def __call__(self, inputs: Inputs, rngs: Sequence[np.random.Generator]) -> Inputs:
        """Texts (B, n, L) with the words that are left moved together."""
        assert isinstance(inputs, dict)
        if set(inputs) != {"tokens", "lengths"}:
            raise FewshotError(
                f"texts with {', '.join(sorted(set(inputs) - {'tokens', 'lengths'}))} cannot lose"
                " words; choose a benchmark of plain texts"
            )
        tokens, lengths = inputs["tokens"], inputs["lengths"]
        drawn = np.stack([rng.random(tokens.shape[1:]) for rng in rngs])
        uniform = torch.from_numpy(drawn)
        there = torch.arange(tokens.shape[-1]) < lengths[..., None]
        kept = there & (uniform >= self.share)
        # the word of the largest number stays, should none have
        best = uniform.masked_fill(~there, -1).argmax(-1, keepdim=True)
        kept = kept.scatter(-1, best, True) & there
        order = torch.sort((~kept).to(torch.uint8), dim=-1, stable=True).indices
        moved = tokens.masked_fill(~kept, 0).gather(-1, order)
        return {"tokens": moved, "lengths": kept.sum(-1)}


class ViewStream(ExampleStream):
    """Plain examples, each time another view; what is drawn is a function of the seed and number.

    Args:
        dataset: the examples.
        seed: the benchmark's seed.
        change: makes the views.
    """

    def __init__(self, dataset: ClassDataset, seed: int, change: Change) -> None:
        super().__init__(dataset, seed)
        self.seed, self.change = seed, change

    def __getitems__(self, numbers: Sequence[int]) -> ExampleBatch:
        """Views of these examples."""
        batch = super().__getitems__(numbers)
        rngs = [np.random.default_rng([self.seed, len(STAGES), n, 2]) for n in numbers]
        one = batch.examples.inputs
        single = {k: v[:, None] for k, v in one.items()} if isinstance(one, dict) else one[:, None]
        changed = self.change(single, rngs)
        flat = (
            {name: value[:, 0] for name, value in changed.items()}
            if isinstance(changed, dict)
            else changed[:, 0]
        )
        return batch._replace(examples=batch.examples._replace(inputs=flat))
