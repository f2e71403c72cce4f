"""Few-shot regression: tasks drawn from a Gaussian process.

See `datasets.functions` for the shapes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fewshot.datasets.functions import Array, FunctionTasks, Range, scale
from fewshot.errors import FewshotError
from fewshot.tasks.gaussian_process import JITTER


@dataclass(frozen=True)
class GaussianProcessTasks(FunctionTasks):
    """f ~ GP(0, k), k a squared exponential; y = f(x) + noise, x uniform.

    Garnelo et al. 2018 (arXiv:1807.01613).

    Args:
        length_scale: of the kernel, in the unit of x.
        variance: of the function's values.
        noise: standard deviation of the noise in every y, the queries' too.

    Raises:
        FewshotError: a size or a parameter of the kernel is out of range.
    """

    X: ClassVar[Range] = (-2.0, 2.0)

    length_scale: float = 0.4
    variance: float = 1.0
    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value in (("length_scale", self.length_scale), ("variance", self.variance)):
            if value <= 0:
                raise FewshotError(f"{name} is {value}; set it > 0")
        if self.noise < 0:
            raise FewshotError(f"noise is {self.noise}; set it >= 0")

    def numbers(self, points: int) -> tuple[int, int]:
        """Uniform: K places. Normal: K for the function, K for the noise."""
        return points, 2 * points

    def inputs(self, uniform: Array, normal: Array) -> Array:
        """The places (B, K)."""
        return scale(uniform, self.X)

    def targets(self, uniform: Array, normal: Array, x: Array) -> Array:
        """Noisy values (B, K) of one function a task."""
        points = x.shape[1]
        distance = (x[:, :, None] - x[:, None, :]) / self.length_scale
        covariance = self.variance * (np.exp(-0.5 * distance**2) + JITTER * np.eye(points))
        factor = np.linalg.cholesky(covariance)
        # a sum and no matrix product, whose rounding may depend on the number of tasks
        values: Array = (factor * normal[:, None, :points]).sum(-1)
        return values + self.noise * normal[:, points:]
