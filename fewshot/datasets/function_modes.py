"""Functions of several kinds, and mixtures of them (Vuorio et al. 2019, arXiv:1910.13616).

Targets have noise of deviation 0.3, in all stages, as in the paper's code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fewshot.datasets.functions import Array, FunctionTasks, Range, scale
from fewshot.errors import FewshotError


class Mode(NamedTuple):
    """A kind of function: ranges of its numbers, and its values at x (B, K) by them, (B, 1) each.

    Args:
        ranges: of each number.
        function: of x and the numbers.
    """

    ranges: tuple[Range, ...]
    function: Callable[..., Array]


def _steep(share: Array) -> Array:
    """From numbers in (-1, 1), as many below 0 as above, ones of size 0.02 to 0.15."""
    return np.where(share < 0, -1, 1) * scale(np.abs(share), (0.02, 0.15))


CENTRE: Range = (-3.0, 3.0)
MODES: dict[str, Mode] = {
    # amplitude, phase
    "sinusoid": Mode(((0.1, 5.0), (0.0, np.pi)), lambda x, a, b: a * np.sin(x - b)),
    # slope, intercept
    "line": Mode((CENTRE, CENTRE), lambda x, a, b: a * x + b),
    # steepness, centre, height
    "quadratic": Mode(
        ((-1.0, 1.0), CENTRE, CENTRE), lambda x, a, c, b: _steep(a) * (x - c) ** 2 + b
    ),
    # slope, centre, height
    "absolute": Mode((CENTRE, CENTRE, CENTRE), lambda x, a, c, b: a * np.abs(x - c) + b),
    # height, centre, shift
    "tanh": Mode((CENTRE, CENTRE, CENTRE), lambda x, a, c, b: a * np.tanh(x - c) + b),
}
"""By name; each mode of a mixture is as likely as the others."""


@dataclass(frozen=True)
class FunctionModes(FunctionTasks):
    """Functions of one of several modes; x uniform in [-5, 5].

    Args:
        modes: names in `MODES`; each is as likely as the others.

    Raises:
        FewshotError: there is none, or one is unknown.
    """

    X: ClassVar[Range] = (-5.0, 5.0)
    NOISE: ClassVar[float] = 0.3
    MOST: ClassVar[int] = max(len(mode.ranges) for mode in MODES.values())

    modes: tuple[str, ...] = ("sinusoid",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.modes:
            raise FewshotError(f"modes is empty; name some of {', '.join(MODES)}")
        for name in self.modes:
            if name not in MODES:
                raise FewshotError(f"modes has {name!r}; there are {', '.join(MODES)}")

    def numbers(self, points: int) -> tuple[int, int]:
        """Uniform: which mode, its numbers, K places. Normal: K errors."""
        return 1 + self.MOST + points, points

    def inputs(self, uniform: Array, normal: Array) -> Array:
        """The places (B, K)."""
        return scale(uniform[:, 1 + self.MOST :], self.X)

    def targets(self, uniform: Array, normal: Array, x: Array) -> Array:
        """The functions, with noise (B, K)."""
        which = self.mode_of(uniform)
        values = np.empty_like(x)
        for i, name in enumerate(self.modes):
            rows, mode = which == i, MODES[name]
            numbers = [scale(uniform[rows, j + 1, None], r) for j, r in enumerate(mode.ranges)]
            values[rows] = mode.function(x[rows], *numbers)
        return values + self.NOISE * normal

    def mode_of(self, uniform: Array) -> NDArray[np.int64]:
        """The place (B,) of each task's mode."""
        return (uniform[:, 0] * len(self.modes)).astype(np.int64)
