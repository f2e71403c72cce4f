"""Random numbers as functions of an episode's content, whatever ranks, chunks and interruptions."""

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

from fewshot.environments.noise import Noise, mixed
from fewshot.environments.noise import normal as standard
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


def content_seed(inputs: Inputs) -> Tensor:
    """A seed () int64 that is a function of what inputs hold, to the last bit of each float.

    Of tensors alone: it may be vmapped over episodes and compiled.
    """
    parts = [inputs[name] for name in sorted(inputs)] if isinstance(inputs, dict) else [inputs]
    seed = torch.zeros((), dtype=torch.int64, device=parts[0].device)
    for part in parts:
        bits = part.detach().flatten()
        if bits.is_floating_point():
            double = bits.dtype == torch.float64
            bits = bits.view(torch.int64) if double else bits.float().view(torch.int32)
        place = torch.arange(bits.shape[0], device=bits.device)
        seed = mixed(seed + (bits.long() * (2 * mixed(place) + 1)).sum())
    return seed


def standard_normal(seed: Tensor, stream: int, like: Tensor) -> Tensor:
    """Standard normals of the shape, type and device of `like`, for a seed () int64 and a stream.

    The same by loop and vmap, compiled, and where a backward pass runs them again.
    """
    numbers = Noise(seed[None], stream).uniform(range(1), 0, like.numel(), torch.float32)
    return standard(numbers).to(like).view(like.shape)
