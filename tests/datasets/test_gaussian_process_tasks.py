"""Gaussian process tasks: their covariance, their noise, and meta-batches as episodes."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fewshot.datasets.gaussian_process import GaussianProcessTasks
from fewshot.errors import FewshotError


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(count)]


@pytest.mark.parametrize(("length_scale", "variance", "noise"), [(0.4, 1.0, 0.1), (0.8, 2.0, 0.0)])
def test_products_of_values_are_the_kernel_on_average(
    length_scale: float, variance: float, noise: float
) -> None:
    tasks = 20_000
    (many,) = GaussianProcessTasks(1, 1, length_scale, variance, noise).draw_many(generators(tasks))
    (x, y), (x_new, y_new) = (
        [torch.as_tensor(part.inputs)[:, 0, 0].double(), part.targets[:, 0, 0].double()]
        for part in many
    )
    assert -2 <= x.min() < -1.99
    assert 1.99 < x.max() < 2
    # both kinds of point have the same law
    for values in (y, y_new):
        assert abs(values.mean()) < 5 * np.sqrt((variance + noise**2) / tasks)
        assert abs(values.var() / (variance + noise**2) - 1) < 5 * np.sqrt(2 / tasks)
    distance = (x - x_new).abs()
    for low, high in ((0.0, 0.1), (0.3, 0.4), (0.8, 0.9), (2.0, 3.0)):
        inside = (distance >= low) & (distance < high)
        products = (y * y_new)[inside]
        expected = (variance * torch.exp(-0.5 * (distance[inside] / length_scale) ** 2)).mean()
        assert abs(products.mean() - expected) < 5 * products.std() / len(products) ** 0.5


def test_a_task_is_the_factor_of_its_covariance_times_its_numbers() -> None:
    one = GaussianProcessTasks(3, 4, length_scale=0.5, variance=2.0, noise=0.3).draw(
        np.random.default_rng(5)
    )
    rng = np.random.default_rng(5)
    x = (-2 + 4 * rng.random(7)).astype(np.float32).astype(np.float64)
    normal = rng.standard_normal(14)
    covariance = 2 * np.exp(-((x[:, None] - x) ** 2) / (2 * 0.25)) + 2e-9 * np.eye(7)
    y = np.linalg.cholesky(covariance) @ normal[:7] + 0.3 * normal[7:]
    np.testing.assert_array_equal(
        torch.cat([torch.as_tensor(part.inputs) for part in one])[:, 0].numpy(), x
    )
    np.testing.assert_allclose(
        torch.cat([part.targets for part in one])[:, 0].numpy(), y, rtol=1e-5, atol=1e-6
    )


@settings(deadline=None, max_examples=30)
@given(
    shot=st.integers(1, 20),
    queries=st.integers(1, 60),
    tasks=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_a_meta_batch_is_its_episodes_stacked(
    shot: int, queries: int, tasks: int, seed: int
) -> None:
    distribution = GaussianProcessTasks(shot, queries)
    (many,) = distribution.draw_many(generators(tasks, seed))
    episodes = [distribution.draw(rng) for rng in generators(tasks, seed)]
    for part in range(2):
        for kind in range(2):
            stacked = torch.stack([torch.as_tensor(episode[part][kind]) for episode in episodes])
            assert torch.equal(torch.as_tensor(many[part][kind]), stacked)


def test_points_that_coincide_are_no_trouble() -> None:
    (many,) = GaussianProcessTasks(100, 200, length_scale=4.0, noise=0.0).draw_many(generators(20))
    assert many.query.targets.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length_scale": 0.0}, "length_scale is 0.0; set it > 0"),
        ({"variance": -1.0}, "variance is -1.0; set it > 0"),
        ({"noise": -0.1}, "noise is -0.1; set it >= 0"),
        ({"shot": 0}, "shot is 0; it must be at least 1"),
    ],
)
def test_kernels_that_are_none_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(FewshotError, match=message):
        GaussianProcessTasks(**arguments)  # type: ignore[arg-type]
