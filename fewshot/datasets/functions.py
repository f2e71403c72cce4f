"""Few-shot regression: tasks that are random functions of one variable, without noise.

Shapes: B tasks, K points (the support's and the queries' together). An episode's inputs and targets
are float32 (shot, 1) and (queries, 1); a meta-batch has the axis B before them.

Each task draws its random numbers from its own generator, always as many and in the same order; one
vectorised function turns them into points. So a meta-batch is its episodes stacked, bit for bit, at
little more than the cost of one.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fewshot.episodes.types import Episode, Examples
from fewshot.errors import FewshotError

Array: TypeAlias = NDArray[np.float64]
Range: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class FunctionTasks(ABC):
    """A distribution over functions, and over the points at which they are seen.

    Subclasses say which.

    Args:
        shot: support points of a task.
        queries: query points of a task, drawn like the support's.

    Raises:
        FewshotError: `shot` or `queries` is below 1.
    """

    shot: int = 10
    queries: int = 10

    def __post_init__(self) -> None:
        for name, value in (("shot", self.shot), ("queries", self.queries)):
            if value < 1:
                raise FewshotError(f"{name} is {value}; it must be at least 1")

    def draw(self, rng: np.random.Generator) -> Episode:
        """One task: its support (shot, 1) and its query points (queries, 1)."""
        x, y = (values[0] for values in self._points([rng]))
        s = self.shot
        return Episode(Examples(x[:s], y[:s]), Examples(x[s:], y[s:]))

    def draw_many(self, rngs: Sequence[np.random.Generator]) -> list[Episode]:
        """One part of a task a generator: `draw` of each, stacked, only faster."""
        x, y = self._points(rngs)
        s = self.shot
        support = Examples(x[:, :s].contiguous(), y[:, :s].contiguous())
        return [Episode(support, Examples(x[:, s:].contiguous(), y[:, s:].contiguous()))]

    def _points(self, rngs: Sequence[np.random.Generator]) -> tuple[Tensor, Tensor]:
        """The places and values of all points, float32 (B, K, 1); the support's come first."""
        uniforms, normals = self.numbers(self.shot + self.queries)
        uniform, normal = np.empty((len(rngs), uniforms)), np.empty((len(rngs), normals))
        for rng, uniform_row, normal_row in zip(rngs, uniform, normal, strict=True):
            rng.random(out=uniform_row)
            rng.standard_normal(out=normal_row)
        # rounded before the function sees them, so that the targets belong to the inputs that are
        # handed out
        x = self.inputs(uniform, normal).astype(np.float32)
        y = self.targets(uniform, normal, x.astype(np.float64)).astype(np.float32)
        return torch.from_numpy(self.seen(uniform, x)), torch.from_numpy(y).unsqueeze(-1)

    def seen(self, uniform: Array, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """What stands for the points' places (B, K) in episodes, (B, K, 1) or more values."""
        return x[..., None]

    @abstractmethod
    def numbers(self, points: int) -> tuple[int, int]:
        """How many uniform and then standard normal numbers a task with K `points` takes."""

    @abstractmethod
    def inputs(self, uniform: Array, normal: Array) -> Array:
        """The points' places (B, K), from a row of random numbers a task."""

    @abstractmethod
    def targets(self, uniform: Array, normal: Array, x: Array) -> Array:
        """The functions' values (B, K) at `x` (B, K), from the same random numbers."""


@dataclass(frozen=True)
class Sinusoid(FunctionTasks):
    """y = A sin(x - phi), amplitude, phase and x uniform (Finn et al. 2017, arXiv:1703.03400)."""

    AMPLITUDE: ClassVar[Range] = (0.1, 5.0)
    PHASE: ClassVar[Range] = (0.0, math.pi)
    X: ClassVar[Range] = (-5.0, 5.0)

    def numbers(self, points: int) -> tuple[int, int]:
        """Uniform: amplitude, phase, K places."""
        return 2 + points, 0

    def inputs(self, uniform: Array, normal: Array) -> Array:
        """The places (B, K)."""
        return scale(uniform[:, 2:], self.X)

    def targets(self, uniform: Array, normal: Array, x: Array) -> Array:
        """The sine waves (B, K)."""
        return sinusoid(
            x, scale(uniform[:, 0:1], self.AMPLITUDE), scale(uniform[:, 1:2], self.PHASE)
        )


@dataclass(frozen=True)
class SinusoidAndLine(FunctionTasks):
    """A sinusoid or, as often, a line; x as the sinusoid's.

    Finn, Xu & Levine 2018 (arXiv:1806.02817).
    """

    SLOPE: ClassVar[Range] = (-3.0, 3.0)
    INTERCEPT: ClassVar[Range] = (-3.0, 3.0)

    def numbers(self, points: int) -> tuple[int, int]:
        """Uniform: which kind, amplitude or slope, phase or intercept, K places."""
        return 3 + points, 0

    def inputs(self, uniform: Array, normal: Array) -> Array:
        """The places (B, K)."""
        return scale(uniform[:, 3:], Sinusoid.X)

    def targets(self, uniform: Array, normal: Array, x: Array) -> Array:
        """The sine waves and lines (B, K)."""
        kind, first, second = uniform[:, 0:1], uniform[:, 1:2], uniform[:, 2:3]
        waves = sinusoid(x, scale(first, Sinusoid.AMPLITUDE), scale(second, Sinusoid.PHASE))
        lines = scale(first, self.SLOPE) * x + scale(second, self.INTERCEPT)
        return np.where(kind < 0.5, waves, lines)


@dataclass(frozen=True)
class Harmonic(FunctionTasks):
    """y = a1 sin(w x + b1) + a2 sin(2 w x + b2), x around mu.

    Lacoste et al. 2018 (arXiv:1806.07528).

    The amplitudes a are standard normal; w, the phases b and the centre mu are uniform; x ~ N(mu,
    1), one mu for support and query.
    """

    FREQUENCY: ClassVar[Range] = (5.0, 7.0)
    PHASE: ClassVar[Range] = (0.0, 2 * math.pi)
    CENTRE: ClassVar[Range] = (-4.0, 4.0)

    def numbers(self, points: int) -> tuple[int, int]:
        """Uniform: w, b1, b2, mu. Normal: a1, a2, K places."""
        return 4, 2 + points

    def inputs(self, uniform: Array, normal: Array) -> Array:
        """The places (B, K)."""
        return scale(uniform[:, 3:4], self.CENTRE) + normal[:, 2:]

    def targets(self, uniform: Array, normal: Array, x: Array) -> Array:
        """The sums of two harmonics (B, K)."""
        angle = scale(uniform[:, 0:1], self.FREQUENCY) * x
        b1, b2 = scale(uniform[:, 1:2], self.PHASE), scale(uniform[:, 2:3], self.PHASE)
        return normal[:, 0:1] * np.sin(angle + b1) + normal[:, 1:2] * np.sin(2 * angle + b2)


def sinusoid(x: Array, amplitude: Array, phase: Array) -> Array:
    """`amplitude` sin(`x` - `phase`)."""
    return amplitude * np.sin(x - phase)


def scale(unit: Array, bounds: Range) -> Array:
    """Numbers in [0, 1) moved to [low, high)."""
    low, high = bounds
    return low + (high - low) * unit
