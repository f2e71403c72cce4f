import gc
import weakref

import torch
from torch import Tensor

from fewshot.episodes.types import (
    Episode,
    Examples,
    count,
    episode,
    flatten,
    map_tensors,
    stack,
    unflatten,
)


def text_episode(first: int) -> Episode:
    """An episode whose inputs are a dict, with numbers that tell every tensor apart."""

    def examples(n: int, offset: int) -> Examples:
        tokens = torch.arange(n * 3).view(n, 3) + first + offset
        return Examples(
            {"tokens": tokens, "lengths": torch.arange(n) + first + offset},
            torch.arange(n) - offset,
        )

    return Episode(examples(2, 100), examples(4, 200))


def test_stacking_and_taking_out_are_inverse() -> None:
    episodes = [text_episode(first) for first in (0, 1000, 2000)]
    meta_batch = stack(episodes)
    assert isinstance(meta_batch, Episode)
    assert isinstance(meta_batch.support, Examples)
    assert count(meta_batch) == 3
    for i, original in enumerate(episodes):
        back = episode(meta_batch, i)
        for part, expected in zip(back, original, strict=True):
            assert isinstance(part.inputs, dict)
            assert isinstance(expected.inputs, dict)
            assert part.inputs.keys() == expected.inputs.keys()
            assert all(
                torch.equal(part.inputs[name], expected.inputs[name]) for name in expected.inputs
            )
            assert torch.equal(part.targets, expected.targets)


def test_count_is_the_episode_axis() -> None:
    meta_batch = stack([text_episode(0)] * 5)
    assert count(meta_batch) == 5  # not S = 2, N*Q = 4 or L = 3
    assert meta_batch.support.targets.shape == (5, 2)


def test_map_tensors_reaches_every_tensor_and_keeps_the_types() -> None:
    seen: list[Tensor] = []

    def double(tensor: Tensor) -> Tensor:
        seen.append(tensor)
        return 2 * tensor

    original = text_episode(7)
    doubled = map_tensors(double, original)
    assert len(seen) == 6
    assert isinstance(doubled, Episode)
    assert isinstance(doubled.query, Examples)
    assert isinstance(doubled.query.inputs, dict)
    assert isinstance(original.query.inputs, dict)
    assert torch.equal(doubled.query.inputs["lengths"], 2 * original.query.inputs["lengths"])
    assert torch.equal(doubled.support.targets, 2 * original.support.targets)


def test_a_tree_that_was_taken_apart_is_not_kept() -> None:
    # by a function that refers to itself, till Python looks for cycles: megabytes a validation
    tensor = torch.zeros(3)
    left = weakref.ref(tensor)
    gc.disable()
    try:
        leaves, structure = flatten({"one": [tensor, (tensor,)]})
        unflatten(structure, leaves)
        del tensor, leaves
        assert left() is None
    finally:
        gc.enable()
