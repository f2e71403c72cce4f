"""A trained learner on one's own data: load a checkpoint, adapt to a support set, name queries.

```python
learner = fewshot.load("best.ckpt")
predictor = learner.adapt("support")  # a folder a class
predictor("queries").names
```
"""

import os
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from fewshot.datasets.fitting import names_of
from fewshot.datasets.preprocessing import Preprocessing, as_float
from fewshot.datasets.reading.kinds import check_kind
from fewshot.deployment.acting import AdaptedPolicy, adapted_policy, check_acts
from fewshot.deployment.adapting import adapted, embedded, features_of, goes_by_features, judged
from fewshot.deployment.expected import Expected, HeldOut, hold_out, told_validation
from fewshot.deployment.items import Items, Predictions, Query, Support, chunks, size_of
from fewshot.deployment.queries import read_queries
from fewshot.environments.given import Playable
from fewshot.episodes.types import Examples, Inputs, map_tensors
from fewshot.errors import FewshotError
from fewshot.learners.base import MetaLearner
from fewshot.learners.embedding import at_least_float32
from fewshot.tasks import Classification
from fewshot.tasks.calibration import temperature_of


class TrainedLearner:
    """A trained learner of classification or control, ready for supports of one's own.

    Every query is judged by itself, whatever others there are: batch normalisation is `inductive`
    here, whichever policy the learner was tested with. Transductive heads alone judge all queries
    of a call together.

    Args:
        module: the learner.
        preprocessing: what makes inputs of files; None: tensors alone are taken.
        calibrate: have a support's held-out examples calibrate the probabilities, where no
            checkpoint knows a temperature and the learner goes by features.

    Raises:
        FewshotError: the learner neither classifies nor acts.
    """

    def __init__(
        self,
        module: MetaLearner,
        preprocessing: Preprocessing[Any] | None = None,
        calibrate: bool = False,
    ) -> None:
        if module.task.acts:
            check_acts(module)
        elif not isinstance(module.task, Classification):
            raise FewshotError(
                f"this {type(module).__name__} was trained on {module.task.kind}, and only classes"
                f" can be named; use {type(module).__name__}.load_from_checkpoint and its `adapt`"
                " and `predict` on tensors"
            )
        self.module, self.preprocessing = module, preprocessing
        self.calibrate = calibrate and goes_by_features(module)
        module.batchnorm = "inductive"

    @overload
    def adapt(self, support: Support) -> "Predictor": ...

    @overload
    def adapt(self, support: Playable, trials: int = 20, seed: int = 0) -> AdaptedPolicy: ...

    def adapt(
        self, support: Support | Playable, trials: int = 20, seed: int = 0
    ) -> "Predictor | AdaptedPolicy":
        """The classifier of a support set, of any number of classes and shots the learner allows.

        Of a learner that acts: the policy that it adapts to an environment by playing in it.

        Args:
            support: a folder with a folder a class (of images; for texts also ``<class>.txt``, a
                text a line); or the items of each class by its name: image files, texts, or a
                tensor of inputs; or `Examples` with labels 0 ... N-1, whose classes are called so.
                Tensors of images are (n, C, H, W), uint8 or in [0, 1]. To act: an environment of
                Gymnasium that knows its task, such as `gymnasium.make` gives.
            trials: how many are played before each inner step, where it acts.
            seed: of these trials, and of the actions that the policy samples.

        Raises:
            FewshotError: the support cannot be read, or the learner cannot take it.
        """
        if self.module.task.acts or isinstance(support, Playable):
            return adapted_policy(self.module, support, trials, seed)
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
        support = embedded(self.module, examples)
        return Predictor(self, adapted(self.module, support), classes, support)

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
        # where there are none, nothing says how precise inputs must be
        precision = next((p.dtype for p in self.module.parameters()), None)
        return map_tensors(
            lambda t: t.to(self.module.device, precision if t.is_floating_point() else None),
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
        if any(isinstance(items, str | os.PathLike) for items in by_class.values()):
            raise FewshotError("a class of the support is one file or text; give each a list")
        if empty := [repr(name) for name, items in by_class.items() if not size_of(items)]:
            raise FewshotError(
                f"of the support {names_of(empty)} ha{'s' if len(empty) == 1 else 've'} no example;"
                " give each class one, or leave it out"
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
        sizes = torch.tensor([size_of(part) for part in parts], device=self.module.device)
        labels = torch.arange(len(parts), device=self.module.device).repeat_interleave(sizes)
        return tuple(map(str, by_class)), Examples(inputs, labels)


class Predictor:
    """A learner adapted to a support set: gives the classes of queries.

    Args:
        learner: the trained learner.
        adapted: what its `adapt` gave.
        classes: the classes' names.
        support: the support set, as `fewshot.deployment.adapting.embedded` gives it.
    """

    def __init__(
        self, learner: TrainedLearner, adapted: Any, classes: tuple[str, ...], support: Examples
    ) -> None:
        self.learner, self.adapted, self.classes = learner, adapted, classes
        self.support = support

    @cached_property
    def held_out(self) -> HeldOut | None:
        """What learners say of support examples that they have not seen; None at 1 shot."""
        if self.too_few is not None:
            return None
        module = self.learner.module
        return hold_out(partial(adapted, module), partial(judged, module), self.support)

    @property
    def too_few(self) -> str | None:
        """A class of one example, none of which can be held out; None where there is none."""
        counts = torch.bincount(self.support.targets)
        return self.classes[int(counts.argmin())] if counts.min() < 2 else None

    @cached_property
    def expected(self) -> Expected:
        """The accuracy that is to be expected, from the support alone, by cross-validation.

        It adapts a few times more, to a part of the support each, when it is first asked for.
        """
        if self.held_out is not None:
            return Expected.of(self.held_out)
        return Expected(
            reason=f"the class {self.too_few!r} has one example, which cannot be learned from and"
            " held out at once; give two or more of each class",
            elsewhere=told_validation(self.learner.module.last_validation, self.support.targets),
        )

    @cached_property
    def temperature(self) -> float:
        """What logits are divided by before they are made probabilities."""
        if (known := self.learner.module.softmax_temperature) is not None:
            return known
        if self.learner.calibrate and self.held_out is not None:
            return temperature_of(self.held_out.outputs, self.held_out.targets)
        return 1.0

    @property
    def calibration(self) -> str:
        """Where the temperature comes from, in one line."""
        if self.learner.module.softmax_temperature is not None:
            return (
                "probabilities: calibrated on the checkpoint's validation episodes (temperature"
                f" {self.temperature:.3g})"
            )
        if self.learner.calibrate and self.held_out is not None:
            return (
                f"probabilities: calibrated on the support's {len(self.held_out.targets)} held-out"
                f" examples (temperature {self.temperature:.3g})"
            )
        return "probabilities: as the learner gives them, not calibrated"

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
        if not (size := size_of(items)):
            raise FewshotError("there is no query; give at least one")
        outputs = self._outputs(items, size)
        bad = (~outputs.isfinite().all(-1)).nonzero().flatten().tolist()
        if bad:
            raise FewshotError(
                f"the learner's outputs for {len(bad)} of {size} queries are not finite, first for"
                f" number {bad[0]}; its training or its adaptation has diverged (lower inner_lr),"
                " or the inputs are not finite"
            )
        return Predictions(self.classes, (outputs / self.temperature).softmax(-1).cpu())

    def _outputs(self, items: Items, size: int) -> Tensor:
        """Logits (n, N) of the `size` items, some at a time; of a transductive head, together."""
        module = self.learner.module
        parts = (self.learner.inputs(part) for part in chunks(items, size))
        if not module.facts().get("transductive"):
            return torch.cat([self.outputs(part) for part in parts])
        every = [features_of(module, part) for part in parts]
        if all(isinstance(part, Tensor) for part in every):
            return judged(module, self.adapted, torch.cat(every))  # type: ignore[arg-type]
        return self.outputs(self.learner.inputs(items))

    def outputs(self, inputs: Inputs) -> Tensor:
        """Logits (n, N) of inputs (n, ...) on the learner's device."""
        with torch.no_grad():
            return at_least_float32(self.learner.module.predict(self.adapted, inputs))
