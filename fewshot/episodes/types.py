"""Examples, episodes, meta-batches: the values that flow between benchmarks and learners.

Shape legend, used all over the package: B episodes, N way, K shot, Q queries a class, S = N*K
support examples, C channels, H height, W width, L tokens, D features. Stacked episodes are an
`Episode` whose tensors have a leading axis B. All types are NamedTuples, so `torch.func`, pinning
and Lightning's device transfer take them as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from fewshot.errors import FewshotError

Inputs: TypeAlias = Tensor | dict[str, Tensor]
"""What a backbone reads: a tensor, or a dict of them with the same first axes (text, graphs)."""

WIDTHS = 8
"""Texts are cut to multiples of so many places, so that a text has one width in most batches."""

Tree = TypeVar("Tree")


class Examples(NamedTuple):
    """Inputs and their targets, with the same first axis (S or N*Q; stacked, B comes before it).

    `marks` stand beside queries whose results are told apart by them; no learner reads them.
    Segmentation: the place among the benchmark's classes of each label 1..N, (N,). Videos: the
    video of each query.
    """

    inputs: Inputs
    targets: Tensor
    marks: Tensor | None = None


class Episode(NamedTuple):
    """A support set to learn from and a query set to be judged on."""

    support: Examples
    query: Examples


PartFunction: TypeAlias = Callable[[list[Examples], Tensor | None], Sequence[Examples]]
"""From what is read together to what takes its place: the support and the query of a part, or plain
examples alone; and the numbers (b,) of its episodes, or of the examples."""


class MetaBatch(NamedTuple):
    """Numbered episodes, as a loader hands them out.

    ```python
    >>> import fewshot
    >>> data = fewshot.SinusoidDataModule(shot=10, queries=5, eval_batch_size=4, test_episodes=8)
    >>> batch = next(iter(data.test_dataloader()))
    >>> batch.size, batch.numbers.tolist()
    (4, [0, 1, 2, 3])
    >>> batch.support.inputs.shape, batch.query.targets.shape
    (torch.Size([4, 10, 1]), torch.Size([4, 5, 1]))
    ```

    Args:
        parts: the episodes. Stacked to one part; or where their sizes differ one by one, each with
            B = 1.
        numbers: of each episode in its stage's list, (B,) int64 on the CPU; None where nobody has
            numbered them.
        sources: the name of each part's source, for benchmarks of several.
    """

    parts: list[Episode]
    numbers: Tensor | None = None
    sources: tuple[str, ...] | None = None

    @classmethod
    def of(cls, batch: Any, learner: str = "the learner") -> "MetaBatch":
        """What a loader gave to `learner`, as a meta-batch: perhaps stacked episodes, or a list.

        Raises:
            FewshotError: it is neither.
        """
        if isinstance(batch, MetaBatch):
            return batch
        parts = [batch] if isinstance(batch, Episode) else batch
        if isinstance(parts, list) and parts and all(isinstance(part, Episode) for part in parts):
            return cls(parts)
        raise FewshotError(
            f"{learner} takes episodes, but the loader gives {type(batch).__name__}; take one of"
            " the library's benchmarks, or yield an Episode whose tensors have a first axis B"
        )

    @property
    def unit(self) -> str:
        """What there are `size` of."""
        return "episodes"

    @property
    def size(self) -> int:
        """B, the number of episodes."""
        return sum(count(part) for part in self.parts)

    @property
    def stacked(self) -> Episode:
        """The episodes, where all are of one size: the only part. Else a FewshotError."""
        if len(self.parts) != 1:
            raise FewshotError(
                f"the meta-batch has {len(self.parts)} parts, whose episodes differ in size; take"
                " its `parts` one by one"
            )
        return self.parts[0]

    @property
    def support(self) -> Examples:
        """Of the `stacked` episodes, as a callback of one's own may read it."""
        return self.stacked.support

    @property
    def query(self) -> Examples:
        """The same of the queries."""
        return self.stacked.query

    def numbered(self) -> Iterator[tuple[Episode, Tensor | None]]:
        """Each part with the numbers (b,) of its episodes."""
        if self.numbers is None:
            yield from ((part, None) for part in self.parts)
            return
        sizes = [count(part) for part in self.parts]
        yield from zip(self.parts, torch.split(self.numbers, sizes), strict=True)

    def singles(self) -> Iterator[Episode]:
        """Each episode, with B = 1."""
        for part in self.parts:
            for i in range(count(part)):
                yield map_tensors(lambda tensor: tensor[i : i + 1], part)  # noqa: B023

    def map(self, function: Callable[[Examples], Examples]) -> "MetaBatch":
        """The meta-batch with `function` applied to the support and the query of each part."""
        return self.map_parts(lambda examples, _: [function(one) for one in examples])

    def map_parts(self, function: PartFunction) -> "MetaBatch":
        """The meta-batch with `function` applied to support and query of each part together."""
        parts = [Episode(*function(list(part), numbers)) for part, numbers in self.numbered()]
        return self._replace(parts=parts)

    def map_by_source(self, function: Callable[[str, "MetaBatch"], "MetaBatch"]) -> "MetaBatch":
        """The meta-batch with each part replaced by what `function` makes of it for its source."""
        assert self.sources is not None  # of a benchmark of several
        parts: list[Episode] = []
        for source, (part, numbers) in zip(self.sources, self.numbered(), strict=True):
            parts += function(source, MetaBatch([part], numbers)).parts
        return self._replace(parts=parts)


class ExampleBatch(NamedTuple):
    """Numbered plain examples of the training classes, for learners that train without episodes.

    Args:
        examples: inputs (n, ...) and labels (n,).
        numbers: of each example in the endless list of passes, (n,) int64 on the CPU; None where
            nobody has numbered them.
    """

    examples: Examples
    numbers: Tensor | None = None

    @classmethod
    def of(cls, batch: Any, learner: str = "the learner") -> "ExampleBatch":
        """What a loader gave to `learner`, as a batch of examples.

        Raises:
            FewshotError: it is neither such a batch nor Examples.
        """
        if isinstance(batch, ExampleBatch):
            return batch
        if isinstance(batch, Examples):
            return cls(batch)
        raise FewshotError(
            f"{learner} trains on Examples (inputs and labels), but the loader gives"
            f" {type(batch).__name__}; train it on one of the library's benchmarks, or yield"
            " Examples"
        )

    @property
    def unit(self) -> str:
        """What there are `size` of."""
        return "examples"

    @property
    def size(self) -> int:
        """How many examples there are."""
        return len(self.examples.targets)

    def map(self, function: Callable[[Examples], Examples]) -> "ExampleBatch":
        """The batch with `function` applied to its examples."""
        return self._replace(examples=function(self.examples))

    def map_parts(self, function: PartFunction) -> "ExampleBatch":
        """The same for a function of lists."""
        (examples,) = function([self.examples], self.numbers)
        return self._replace(examples=examples)

    def map_by_source(self, function: Callable[[str, MetaBatch], MetaBatch]) -> "ExampleBatch":
        """Itself: plain examples are of one source, which nobody names."""
        return self


def as_batch(batch: Any) -> MetaBatch | ExampleBatch:
    """What a loader gave, whichever of the two it is.

    Raises:
        FewshotError: it is neither.
    """
    plain = isinstance(batch, ExampleBatch | Examples)
    return ExampleBatch.of(batch) if plain else MetaBatch.of(batch)


TrainingBatch = TypeVar("TrainingBatch", MetaBatch, ExampleBatch)
"""What a learner trains on."""


def as_numbers(numbers: Sequence[int]) -> Tensor:
    """Numbers of episodes or examples (n,) int64, as a batch carries them."""
    return torch.from_numpy(np.array(numbers))  # 20 times as fast as torch's own reading of a list


def count(episodes: Episode) -> int:
    """B, the number of stacked episodes."""
    return len(episodes.query.targets)


def episode(episodes: Episode, index: int) -> Episode:
    """Number `index` of stacked episodes, without the axis B."""
    return map_tensors(lambda tensor: tensor[index], episodes)


def unstacked(episodes: Episode) -> list[Episode]:
    """Each of stacked episodes, without the axis B."""
    leaves, structure = flatten(episodes)
    return [unflatten(structure, one) for one in zip(*map(torch.unbind, leaves), strict=True)]


def stack(trees: Sequence[Tree]) -> Tree:
    """Stack trees of the same shapes along a new first axis, such as episodes."""
    rows = [flatten(tree) for tree in trees]
    stacked = [torch.stack(column) for column in zip(*(leaves for leaves, _ in rows), strict=True)]
    return cast(Tree, unflatten(rows[0][1], stacked))


def map_tensors(function: Callable[[Tensor], Tensor], tree: Tree) -> Tree:
    """Apply `function` to every tensor of inputs, examples, an episode, or what a learner keeps."""
    leaves, structure = flatten(tree)
    return cast(Tree, unflatten(structure, [function(leaf) for leaf in leaves]))


class Leaf(NamedTuple):
    """The place of a tensor in a structure."""

    number: int


def flatten(tree: Any) -> tuple[list[Tensor], Any]:
    """The tensors of a tree, and its structure: the tree with a `Leaf` in the place of each.

    Trees are tuples, NamedTuples, lists and dicts; what else is in them belongs to the structure.
    """
    leaves: list[Tensor] = []
    return leaves, _structure(tree, leaves)


def _structure(node: Any, leaves: list[Tensor]) -> Any:
    # no function inside of `flatten` that calls itself: it would keep the leaves till Python looks
    # for cycles
    if isinstance(node, Tensor):
        leaves.append(node)
        return Leaf(len(leaves) - 1)
    return _rebuilt(node, partial(_structure, leaves=leaves))


def unflatten(structure: Any, leaves: Sequence[Tensor]) -> Any:
    """The tree of this structure with these tensors."""
    if isinstance(structure, Leaf):
        return leaves[structure.number]
    return _rebuilt(structure, partial(unflatten, leaves=leaves))


def _rebuilt(node: Any, walk: Callable[[Any], Any]) -> Any:
    """A node of a tree with `walk` applied to what it holds."""
    if isinstance(node, tuple):
        children = [walk(child) for child in node]
        return type(node)(*children) if hasattr(node, "_fields") else tuple(children)
    if isinstance(node, list):
        return [walk(child) for child in node]
    if isinstance(node, dict):
        return {key: walk(child) for key, child in node.items()}
    return node
