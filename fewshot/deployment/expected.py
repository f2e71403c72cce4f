"""How good a predictor will be, from its support alone: cross-validation within it.

Few folds estimate best (arXiv:2307.02732). The interval is that of so many held-out examples.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fewshot.episodes.types import Examples, Inputs, map_tensors
from fewshot.tasks.proportions import future_interval, share_interval

FOLDS = 5


class HeldOut(NamedTuple):
    """What was said of support examples by learners that had not seen them.

    Args:
        outputs: logits (S, N).
        targets: labels (S,).
        folds: how many times a part was held out.
        shots: examples of a class that the learners saw, from the fewest to the most.
    """

    outputs: Tensor
    targets: Tensor
    folds: int
    shots: tuple[int, int]

    @property
    def right(self) -> int:
        """How many were named right."""
        return int((self.outputs.argmax(-1) == self.targets).sum())


def hold_out(
    adapt: Callable[[Examples], Any],
    predict: Callable[[Any, Inputs], Tensor],
    support: Examples,
    most: int = FOLDS,
) -> HeldOut:
    """Stratified cross-validation: each example is judged by what is learned of other folds.

    Which example is in which fold is drawn with a fixed seed, so that photos that follow each other
    fall apart, and the same support gives the same result.

    Args:
        adapt: learns from examples.
        predict: gives the logits of inputs.
        support: two examples of each class or more.
        most: folds at most; there are no more than the smallest class has examples.
    """
    targets = support.targets
    counts = torch.bincount(targets)
    folds = min(most, int(counts.min()))
    generator = torch.Generator().manual_seed(0)
    fold_of = torch.empty(len(targets), dtype=torch.long)
    for label, count in enumerate(counts.tolist()):
        places = torch.randperm(count, generator=generator)
        fold_of[(targets == label).nonzero().flatten().cpu()] = places % folds
    outputs, seen = None, []
    for fold in range(folds):
        held = (fold_of == fold).to(targets.device)
        adapted = adapt(map_tensors(lambda t: t[~held], support))  # noqa: B023
        given = predict(adapted, map_tensors(lambda t: t[held], support.inputs))  # noqa: B023
        if outputs is None:
            outputs = given.new_empty(len(targets), given.shape[-1])
        outputs[held] = given
        seen += torch.bincount(targets[~held]).tolist()
    assert outputs is not None
    return HeldOut(outputs, targets, folds, (min(seen), max(seen)))


@dataclass(frozen=True)
class Expected:
    """The accuracy that is to be expected, in [0, 1].

    It is that of queries whose classes are as frequent as in the support, by learners that have
    seen fewer shots: the predictor itself is a little better, if anything.

    Args:
        right: held-out examples that were named right.
        held_out: how many there were; 0 where none could be.
        folds: of the cross-validation.
        shots: examples of a class that its learners saw, from the fewest to the most.
        reason: why nothing could be held out.
        elsewhere: what else is known then, from the checkpoint.
    """

    right: int = 0
    held_out: int = 0
    folds: int = 0
    shots: tuple[int, int] = (0, 0)
    reason: str = ""
    elsewhere: str = ""

    @classmethod
    def of(cls, held: HeldOut) -> "Expected":
        """What held-out examples tell."""
        return cls(held.right, len(held.targets), held.folds, held.shots)

    @property
    def accuracy(self) -> float | None:
        """The share of held-out examples that were named right; None where there are none."""
        return self.right / self.held_out if self.held_out else None

    def interval(self, queries: int | None = None) -> tuple[float, float] | None:
        """The 95 % interval of the accuracy; None where it is not known.

        Args:
            queries: on how many queries, whose own chance makes it wider; None: on any number.
        """
        if not self.held_out:
            return None
        if queries is None:
            return share_interval(self.right, self.held_out)
        return future_interval(self.right, self.held_out, queries)

    def told(self, queries: int | None = None) -> str:
        """All of it in one line."""
        ends = self.interval(queries)
        if ends is None:
            rest = f"; {self.elsewhere}" if self.elsewhere else ""
            return f"expected accuracy: not known, because {self.reason}{rest}"
        fewest, most = self.shots
        shots = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        asked = "" if queries is None else f" of {queries} queries"
        return (
            f"expected accuracy{asked}: {100 * self.right / self.held_out:.1f} % (95 % interval"
            f" {100 * ends[0]:.1f} - {100 * ends[1]:.1f} %), from the support alone:"
            f" {self.held_out} examples held out in {self.folds} folds, by learners that saw"
            f" {shots} of each class"
        )

    def __str__(self) -> str:
        """All of it in one line."""
        return self.told()


def told_validation(validated: Mapping[str, Any] | None, targets: Tensor) -> str:
    """What a checkpoint's validation says of a support with these labels (S,).

    Empty where it says nothing, or its episodes had another way or shot.
    """
    counts = torch.bincount(targets)
    way, shots = len(counts), set(counts.tolist())
    if validated is None or validated["way"] != way or shots != {validated["shot"]}:
        return ""
    low, high = validated["range95"]
    return (
        f"{validated['episodes']} validation episodes of the checkpoint, {way}-way"
        f" {validated['shot']}-shot too, had {100 * validated['accuracy']:.1f} % on average, 95 %"
        f" of them {100 * low:.1f} - {100 * high:.1f} %"
    )
