"""A trained learner on one's own data: load a checkpoint, adapt to a support set, name queries.

```python
learner = fewshot.load("best.ckpt")
predictor = learner.adapt("support")  # a folder a class
predictor("queries").names
```
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from fewshot.datasets.preprocessing import Preprocessing, as_float
from fewshot.datasets.reading.kinds import check_kind
from fewshot.deployment.queries import read_queries
from fewshot.episodes.types import Examples, Inputs, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.tasks import Classification

Items: TypeAlias = Tensor | dict[str, Tensor] | Sequence[Any]
"""Inputs as the network reads them, or what preprocessing makes them of: image files, texts."""
Support: TypeAlias = str | os.PathLike[str] | Mapping[str, Items] | Examples
Query: TypeAlias = str | os.PathLike[str] | Items

CHUNK = 64  # queries in memory at once


@dataclass(frozen=True)
class Predictions:
    """What a predictor says of n queries: the classes and the probability (n, N) of each."""

    classes: tuple[str, ...]
    probabilities: Tensor

    def __len__(self) -> int:
        """How many queries there are."""
        return len(self.probabilities)

    @property
    def names(self) -> list[str]:
        """The most probable class of each query."""
        return [self.classes[label] for label in self.probabilities.argmax(-1).tolist()]

    @property
    def confidences(self) -> Tensor:
        """The probability (n,) of the most probable class."""
        return self.probabilities.amax(-1)


class TrainedLearner:
    """A trained learner of classification, ready for support sets of one's own.

    Every query is judged by itself, whatever others there are: batch normalisation is `inductive`
    here, whichever policy the learner was tested with.

    Args:
        module: the learner.
        preprocessing: what makes inputs of files; None: tensors alone are taken.

    Raises:
        FewshotError: the learner does not classify.
    """

    def __init__(
        self, module: MetaLearner, preprocessing: Preprocessing[Any] | None = None
    ) -> None:
        if not isinstance(module.task, Classification):
            raise FewshotError(
                f"this {type(module).__name__} was trained on {module.task.kind}, and only classes"
                f" can be named; use {type(module).__name__}.load_from_checkpoint and its `adapt`"
                " and `predict` on tensors"
            )
        self.module, self.preprocessing = module, preprocessing
        module.batchnorm = "inductive"

    def adapt(self, support: Support) -> "Predictor":
        """The classifier of a support set: any number of classes and shots the learner allows.

        Args:
            support: a folder with a folder a class (of images; for texts also ``<class>.txt``, a
                text a line); or the items of each class by its name: image files, texts, or a
                tensor of inputs; or `Examples` with labels 0 ... N-1, whose classes are called so.
                Tensors of images are (n, C, H, W), uint8 or in [0, 1].

        Raises:
            FewshotError: the support cannot be read, or the learner cannot take it.
        """
        classes, examples = self._examples(support)
        task = self.module.task
        assert isinstance(task, Classification)
        if len(classes) < 2:
            raise FewshotError(
                f"the support has the class {', '.join(classes)} alone; give at least 2 classes"
            )
        if self.module.fixed_way and len(classes) != task.way:
            raise FewshotError(
                f"this {type(self.module).__name__} can tell {task.way} classes apart, no more and"
                f" no fewer, and the support has {len(classes)}; give {task.way}, or train a"
                " learner of any way"
            )
        with torch.no_grad():
            adapted = map_tensors(_detached, self.module.adapt(examples))
        return Predictor(self, adapted, classes)

    def inputs(self, items: Items) -> Inputs:
        """What the network reads, on its device, of `items`.

        Raises:
            FewshotError: they are no tensors, and the checkpoint does not say how inputs are made.
        """
        made: Inputs
        if isinstance(items, Tensor):
            made = as_float(items) if items.dtype == torch.uint8 else items
        elif isinstance(items, Mapping):
            made = dict(items)
        else:
            made = self.reader(items)
        parameter = next(self.module.parameters(), torch.empty(0))
        return map_tensors(
            lambda t: t.to(self.module.device, parameter.dtype if t.is_floating_point() else None),
            made,
        )

    @property
    def reader(self) -> Preprocessing[Any]:
        """What makes inputs of files.

        Raises:
            FewshotError: the checkpoint does not say.
        """
        if self.preprocessing is None:
            raise FewshotError(
                "the checkpoint does not say how inputs are made of files (an older fewshot wrote"
                " it, or the training had no benchmark of this library); pass preprocessing=<the"
                " DataModule>.preprocessing to fewshot.load, give tensors, or train again"
            )
        return self.preprocessing

    def _examples(self, support: Support) -> tuple[tuple[str, ...], Examples]:
        if isinstance(support, Examples):
            labels = support.targets
            classes = torch.unique(labels).tolist()
            if classes != list(range(len(classes))):
                raise FewshotError(
                    f"the support's labels are {classes}; number the classes 0, 1, ... without a"
                    " gap"
                )
            return tuple(map(str, classes)), Examples(
                self.inputs(support.inputs), labels.to(self.module.device)
            )
        if isinstance(support, Mapping):
            by_class: Mapping[str, Items] = support
        else:
            check_kind(Path(support), self.reader.kind)
            by_class = self.reader.support(Path(support))
        for name, items in by_class.items():
            if not _size(items):
                raise FewshotError(
                    f"the class {name!r} of the support has no example; give it one, or leave"
                    " it out"
                )
        if not by_class:
            raise FewshotError("the support has no classes; give at least 2")
        parts = list(by_class.values())
        if all(isinstance(part, Tensor) for part in parts):
            inputs = self.inputs(torch.cat(parts))  # type: ignore[arg-type]  # all are tensors
        elif any(isinstance(part, Tensor | Mapping) for part in parts):
            raise FewshotError(
                "give a tensor for each class of the support, or files or texts for each"
            )
        else:
            inputs = self.inputs([item for part in parts for item in part])
        sizes = torch.tensor([_size(part) for part in parts], device=self.module.device)
        labels = torch.arange(len(parts), device=self.module.device).repeat_interleave(sizes)
        return tuple(map(str, by_class)), Examples(inputs, labels)


class Predictor:
    """A learner adapted to a support set: gives the classes of queries.

    Args:
        learner: the trained learner.
        adapted: what its `adapt` gave.
        classes: the classes' names.
    """

    def __init__(self, learner: TrainedLearner, adapted: Any, classes: tuple[str, ...]) -> None:
        self.learner, self.adapted, self.classes = learner, adapted, classes

    def __call__(self, query: Query) -> Predictions:
        """The classes of queries.

        Args:
            query: an image file or a folder of them; a file of texts, a text a line (a `Path`), or
                a text (a str); a list of image files or of texts; or inputs as tensors (n, ...).

        Raises:
            FewshotError: a query cannot be read, or the learner gives it no finite output.
        """
        items: Items = (
            query
            if isinstance(query, Tensor | Mapping)
            else read_queries(self.learner.reader, query, ()).items
        )
        if not (size := _size(items)):
            raise FewshotError("there is no query; give at least one")
        outputs = torch.cat(
            [self.outputs(self.learner.inputs(part)) for part in _chunks(items, size)]
        )
        bad = (~outputs.isfinite().all(-1)).nonzero().flatten().tolist()
        if bad:
            raise FewshotError(
                f"the learner's outputs for {len(bad)} of {size} queries are not finite, first for"
                f" number {bad[0]}; its training or its adaptation has diverged (lower inner_lr),"
                " or the inputs are not finite"
            )
        return Predictions(self.classes, outputs.softmax(-1).cpu())

    def outputs(self, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...) on the learner's device."""
        with torch.no_grad():
            return self.learner.module.predict(self.adapted, inputs).float()


def _size(items: Items) -> int:
    return len(next(iter(items.values()))) if isinstance(items, Mapping) else len(items)


def _chunks(items: Items, size: int) -> Iterator[Items]:
    for start in range(0, size, CHUNK):
        rows = slice(start, start + CHUNK)
        yield (
            {name: values[rows] for name, values in items.items()}
            if isinstance(items, Mapping)
            else items[rows]
        )


def _detached(leaf: Any) -> Any:
    return leaf.detach() if isinstance(leaf, Tensor) else leaf
