"""Sharing out classes, or the images of one, among train, val and test by a seed."""

import random
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

from fewshot.datasets.reading.folders import SPLITS
from fewshot.errors import FewshotError


def draw_split(
    names: Sequence[str], fractions: tuple[float, float, float], split_seed: int
) -> dict[str, list[str]]:
    """Share out the sorted names by `fractions`, each part one at least.

    They are shuffled by ``random.Random(split_seed)``.
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-6:
        raise FewshotError(f"fractions {fractions}: give three positive shares that add up to 1")
    if len(names) < 3:
        raise FewshotError(
            f"only {len(names)} class folders ({', '.join(names)}); add more, at least 3 are needed"
        )
    val, test = (max(1, round(len(names) * fraction)) for fraction in fractions[1:])
    if val + test >= len(names):
        raise FewshotError(
            f"fractions {fractions} leave none of {len(names)} classes to train; raise the first"
        )
    return dict(zip(SPLITS, shared_out(names, val, test, split_seed), strict=True))


def shared_out(
    items: Sequence[str], val: int, test: int, seed: int | str
) -> tuple[list[str], list[str], list[str]]:
    """The items of train, val and test, in random order."""
    order, train = sorted(items), len(items) - val - test
    random.Random(seed).shuffle(order)
    return order[:train], order[train : train + val], order[train + val :]


def check_given(root: Path, given: Mapping[str, Sequence[str]]) -> None:
    """Check that each of train, val and test has classes, and none another's.

    Raises:
        FewshotError: one has none, or a class stands in two.
    """
    for split in SPLITS:
        if not given[split]:
            raise FewshotError(f"{root}: the split {split} has no classes; give it at least one")
    for one, other in combinations(SPLITS, 2):
        if shared := sorted({*given[one]} & {*given[other]}):
            raise FewshotError(
                f"{root}: the class {shared[0]!r} stands in {one} and in {other}; leave it in one"
                " of them"
            )
