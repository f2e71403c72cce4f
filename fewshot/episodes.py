"""Examples and episodes: the values that flow between benchmarks and learners.

Shape legend, used all over the package: B episodes, N way, K shot, Q queries a class, S = N*K support examples,
C channels, H height, W width, L tokens, D features. A meta-batch is an `Episode` whose tensors have a leading
axis B. Both types are NamedTuples, so `torch.func`, pinning and Lightning's device transfer take them as they are.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias, TypeVar, cast

import torch
from torch import Tensor
from torch.utils import (
    _pytree as pytree,
)  # what torch.func itself maps over; NamedTuples and dicts are built in

Inputs: TypeAlias = Tensor | dict[str, Tensor]
"""What a backbone reads: one tensor, or a dict of tensors with the same first axes (text, graphs)."""

Tree = TypeVar("Tree")


class Examples(NamedTuple):
    """Inputs and their targets, with the same first axis (S or N*Q; in a meta-batch B comes before it)."""

    inputs: Inputs
    targets: Tensor


class Episode(NamedTuple):
    """A support set to learn from and a query set to be judged on."""

    support: Examples
    query: Examples


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply `function` to every tensor of inputs, examples, an episode or a meta-batch."""
    return cast(Tree, pytree.tree_map(function, tree))


def stack(episodes: Sequence[Tree]) -> Tree:
    """Stack trees of the same shapes along a new first axis: episodes (B of them) to a meta-batch."""
    return cast(Tree, pytree.tree_map(lambda *tensors: torch.stack(tensors), *episodes))


def episode(meta_batch: Episode, index: int) -> Episode:
    """Episode number `index` of a meta-batch, without the axis B."""
    return map_tensors(lambda tensor: tensor[index], meta_batch)


def count(meta_batch: Episode) -> int:
    """B, the number of episodes in a meta-batch."""
    return meta_batch.query.targets.shape[0]
