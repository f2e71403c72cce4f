"""Examples and episodes: the values that flow between benchmarks and learners.

Shape legend, used all over the package: B episodes, N way, K shot, Q queries a class, S = N*K
support examples, C channels, H height, W width, L tokens, D features. A meta-batch is an `Episode`
whose tensors have a leading axis B; where the episodes differ in size, a list of such Episodes,
each with B = 1. Both types are NamedTuples, so `torch.func`, pinning and Lightning's device
transfer take them as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, TypeVar, cast

import torch
from torch import Tensor
from torch.utils import (
    _pytree as pytree,
)  # what torch.func itself maps over; NamedTuples and dicts are built in

Inputs: TypeAlias = Tensor | dict[str, Tensor]
"""What a backbone reads: a tensor, or a dict of tensors with equal first axes (text, graphs)."""

Tree = TypeVar("Tree")


class Examples(NamedTuple):
    """Inputs and their targets, with the same first axis (S or N*Q.

    In a meta-batch B comes before it).
    """

    inputs: Inputs
    targets: Tensor


class Marked(NamedTuple):
    """Query examples with marks by which results are told apart, and which no learner reads.

    See `marked`.

    Segmentation: the place among the benchmark's classes of each label 1..N, (N,). Videos: the
    video of each query.
    """

    inputs: Inputs
    targets: Tensor
    marks: Tensor


def marked(inputs: Inputs, targets: Tensor, marks: Tensor) -> Examples:
    """Query examples with marks.

    Whoever reads `inputs` and `targets` by name takes them for what they stand for.
    """
    return cast(Examples, Marked(inputs, targets, marks))


def marks_of(query: Examples) -> Tensor | None:
    """The marks of query examples; None where they have none."""
    return query.marks if isinstance(query, Marked) else None


class Episode(NamedTuple):
    """A support set to learn from and a query set to be judged on."""

    support: Examples
    query: Examples


MetaBatch: TypeAlias = Episode | list[Episode]
"""Several episodes: stacked along a first axis B, or where sizes differ, each with B = 1."""

Batch = TypeVar("Batch", Episode, list[Episode], Examples)
"""What a learner trains on: a meta-batch of episodes, or plain labelled examples."""


def map_examples(function: Callable[[Examples], Examples], batch: Batch) -> Batch:
    """Apply `function` to the support and query of episodes, or to plain examples."""
    if isinstance(batch, Examples):
        return function(batch)
    if isinstance(batch, list):
        return [map_examples(function, one) for one in batch]
    return Episode(*(function(part) for part in batch))


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply `function` to every tensor of inputs, examples, an episode or a meta-batch."""
    return cast(Tree, pytree.tree_map(function, tree))


def stack(episodes: Sequence[Tree]) -> Tree:
    """Stack trees of equal shapes along a new first axis: B episodes to a meta-batch."""
    return cast(Tree, pytree.tree_map(lambda *tensors: torch.stack(tensors), *episodes))


def episode(meta_batch: Episode, index: int) -> Episode:
    """Episode number `index` of a meta-batch, without the axis B."""
    return map_tensors(lambda tensor: tensor[index], meta_batch)


def stacked(meta_batch: MetaBatch) -> list[Episode]:
    """The stacked parts of a meta-batch: itself, or each episode where they differ in size."""
    return meta_batch if isinstance(meta_batch, list) else [meta_batch]


def singles(meta_batch: MetaBatch) -> Iterator[Episode]:
    """Each episode of a meta-batch, with B = 1."""
    for part in stacked(meta_batch):
        for i in range(count(part)):
            yield map_tensors(lambda tensor: tensor[i : i + 1], part)  # noqa: B023  # used at once


def count(batch: MetaBatch | Examples) -> int:
    """B, the number of episodes in a meta-batch; of plain examples, how many they are."""
    if isinstance(batch, list):
        return sum(count(part) for part in batch)
    return (batch if isinstance(batch, Examples) else batch.query).targets.shape[0]
