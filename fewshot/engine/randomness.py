"""Random numbers as functions of an episode's content, whatever ranks, chunks and interruptions."""

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

from fewshot.episodes.types import Inputs


def generators(inputs: Inputs) -> Iterator[torch.Generator]:
    """A CPU generator for each episode, seeded by the content of its inputs (B, T, ...) alone."""
    parts = [inputs[name] for name in sorted(inputs)] if isinstance(inputs, dict) else [inputs]
    content = [
        part.detach().cpu().contiguous().flatten(1).view(torch.uint8).numpy() for part in parts
    ]
    for items in zip(*content, strict=True):
        seed = 0
        for item in items:
            seed = zlib.crc32(item.tobytes(), seed)
        yield torch.Generator("cpu").manual_seed(seed)


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators that operations on `device` draw from: that of the CPU, and its own.

    ``torch.manual_seed`` would note down where it was called from for each kind of device that is
    not there, which took up to half a millisecond: much of a meta-step of a small network.
    """
    torch.default_generator.manual_seed(seed)
    if device.type != "cpu":
        torch.get_device_module(device).manual_seed(seed)


def orders(inputs: Inputs, passes: int = 1) -> Tensor:
    """Random orders (B, passes * T) of the items of each episode, one pass after another.

    Args:
        inputs: (B, T, ...), whose content alone decides.
        passes: orders of each episode.
    """
    first = next(iter(inputs.values())) if isinstance(inputs, dict) else inputs
    rows = [
        torch.cat(
            [
                torch.randperm(first.shape[1], generator=generator, device="cpu")
                for _ in range(passes)
            ]
        )
        for generator in generators(inputs)
    ]
    return torch.stack(rows).to(first.device)


def reordered(items: Tensor, order: Tensor) -> Tensor:
    """Items (B, T, ...) in the `order` (B, n): the one at place t is number ``order[:, t]``."""
    return items[torch.arange(len(items), device=items.device)[:, None], order]


def normal(inputs: Inputs, size: int, like: Tensor) -> Tensor:
    """Standard normals (B, size) for `inputs` (B, T, ...), of the type and device of `like`."""
    rows = [
        torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
        for generator in generators(inputs)
    ]
    return torch.stack(rows).to(like)
