"""Random numbers as a pure function of a seed and a place: the same in a loop, vmapped, on a GPU.

A generator that counts would have to be drawn from in order, outside of vmap and by one process.
SplitMix64 (Steele, Lea and Flood, 2014) hashes a counter instead: number i of a seed is there
without those before it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

GOLDEN = 0x9E3779B97F4A7C15
BITS = 23
"""Of each number: as many as are exact in float32 half-way between two steps."""
TRIES = 8
"""Of the rejection method, which takes more than 95 of 100: all fail once in 10^11."""


class Noise(NamedTuple):
    """The random numbers of n trajectories.

    Args:
        seeds: one a trajectory, (n,) int64.
        stream: independent numbers of the same seeds: those of another inner step.
    """

    seeds: Tensor
    stream: int = 0

    def uniform(self, steps: range, purpose: int, count: int, dtype: torch.dtype) -> Tensor:
        """Numbers (n, T, count) in (0, 1) for steps of the trajectories and a purpose (0 to 7)."""
        device = self.seeds.device
        starts = [((self.stream << 32) + (step << 3) + purpose) << 20 for step in steps]
        start = torch.tensor([signed(GOLDEN * number) for number in starts], device=device)
        counters = torch.arange(1, count + 1, device=device) * signed(GOLDEN)
        keys = mixed(mixed(self.seeds)[:, None] + start)
        words = mixed(keys[..., None] + counters)
        numbers: Tensor = (shifted(words, 64 - BITS).to(dtype) + 0.5) / 2**BITS
        return numbers


def normal(uniform: Tensor) -> Tensor:
    """Standard normal numbers of uniform ones."""
    numbers: Tensor = torch.special.ndtri(uniform)
    return numbers


def gamma(shape: Tensor, uniform: Tensor) -> Tensor:
    """Numbers (...) of gamma distributions of `shape` (...) >= 1 (Marsaglia and Tsang, 2000).

    Args:
        shape: of the distributions.
        uniform: numbers (..., 2 * TRIES).
    """
    x, u = normal(uniform[..., :TRIES]), uniform[..., TRIES:]
    d = (shape - 1 / 3)[..., None]
    v = (1 + x / (9 * d).sqrt()) ** 3
    positive = v.clamp(min=1e-30)
    fits = (v > 0) & (u.log() < 0.5 * x.square() + d - d * v + d * positive.log())
    first = (fits & (fits.cumsum(-1) == 1)).to(v)
    return (first * d * v).sum(-1) + (1 - first.sum(-1)) * d[..., 0]


def mixed(x: Tensor) -> Tensor:
    """SplitMix64's finalizer: every bit of an int64 depends on every other."""
    x = (x ^ shifted(x, 30)) * signed(0xBF58476D1CE4E5B9)
    x = (x ^ shifted(x, 27)) * signed(0x94D049BB133111EB)
    return x ^ shifted(x, 31)


def shifted(x: Tensor, bits: int) -> Tensor:
    """An int64 shifted to the right, zeros from the left."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def signed(x: int) -> int:
    """The int64 with the bits of a number of 64."""
    x &= (1 << 64) - 1
    return x - (1 << 64) if x >> 63 else x
