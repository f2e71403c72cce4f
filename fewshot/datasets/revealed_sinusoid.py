"""Sine waves whose inputs say of which task they are (Yin et al. 2020, arXiv:1912.03820)."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fewshot.datasets.functions import Array, FunctionTasks, Range, scale


@dataclass(frozen=True)
class RevealedSinusoid(FunctionTasks):
    """y = A sin x, with noise; inputs are x and a one-hot vector of `TASKS` places.

    In training it tells the amplitude, one of `TRAINED` that the seed chooses of `TASKS` equally
    spaced ones. Elsewhere the amplitude is uniform, the vector random, and the queries, which are
    drawn from `QUERY_X`, are without noise.

    Args:
        training: which of the two.
        seed: chooses the amplitudes.
    """

    AMPLITUDE: ClassVar[Range] = (0.1, 4.0)
    X: ClassVar[Range] = (-5.0, 5.0)
    QUERY_X: ClassVar[Range] = (-4.5, 4.5)
    NOISE: ClassVar[float] = 0.1
    TASKS: ClassVar[int] = 20
    TRAINED: ClassVar[int] = 16

    training: bool = True
    seed: int = 0

    def numbers(self, points: int) -> tuple[int, int]:
        """Uniform: amplitude, the vector's place, K places. Normal: K errors."""
        return 2 + points, points

    def inputs(self, uniform: Array, normal: Array) -> Array:
        """The places (B, K)."""
        places = uniform[:, 2:]
        if self.training:
            return scale(places, self.X)
        support, query = places[:, : self.shot], places[:, self.shot :]
        return np.concatenate([scale(support, self.X), scale(query, self.QUERY_X)], 1)

    def targets(self, uniform: Array, normal: Array, x: Array) -> Array:
        """The sine waves (B, K)."""
        if self.training:
            amplitudes = np.linspace(*self.AMPLITUDE, self.TASKS)[self._places(uniform)]
        else:
            amplitudes = scale(uniform[:, 0], self.AMPLITUDE)
        noise = self.NOISE * normal
        if not self.training:
            noise[:, self.shot :] = 0
        return amplitudes[:, None] * np.sin(x) + noise

    def seen(self, uniform: Array, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """The places with the vectors behind them, (B, K, 1 + TASKS)."""
        told = np.eye(self.TASKS, dtype=np.float32)[self._places(uniform)]
        told = np.broadcast_to(told[:, None], (*x.shape, self.TASKS))
        return np.concatenate([x[..., None], told], -1)

    def _places(self, uniform: Array) -> NDArray[np.int64]:
        """The place (B,) of the 1 in each task's vector."""
        if not self.training:
            return (uniform[:, 1] * self.TASKS).astype(np.int64)
        order = np.random.default_rng([self.seed, 4]).permutation(self.TASKS)
        return np.sort(order[: self.TRAINED])[(uniform[:, 0] * self.TRAINED).astype(np.int64)]
