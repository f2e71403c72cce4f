"""The exact posterior against scikit-learn's Gaussian process and the joint normal distribution."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel
from torch.distributions import MultivariateNormal

from fewshot.tasks import gaussian_log_likelihood
from fewshot.tasks.gaussian_process import JITTER, posterior, rbf_kernel


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(("length_scale", "variance", "noise"), [(0.4, 1.0, 0.1), (1.3, 2.5, 0.5)])
def test_the_posterior_is_scikit_learns(length_scale: float, variance: float, noise: float) -> None:
    x, y, new = (torch.randn(n, d, dtype=torch.float64) for n, d in ((7, 2), (7, 1), (5, 2)))
    mean, deviation = posterior(x, y, new, length_scale, variance, noise)
    kernel = ConstantKernel(variance, "fixed") * RBF(length_scale, "fixed")
    regressor = GaussianProcessRegressor(kernel, alpha=noise**2 + JITTER * variance).fit(
        x.numpy(), y.numpy()[:, 0]
    )
    found_mean, found_deviation = regressor.predict(new.numpy(), return_std=True)
    np.testing.assert_allclose(mean[:, 0].numpy(), found_mean, rtol=1e-9, atol=1e-12)
    # scikit-learn's is of the function; ours of an observation
    noisy = np.sqrt(found_deviation**2 + noise**2 + JITTER * variance)
    np.testing.assert_allclose(deviation[:, 0].numpy(), noisy, rtol=1e-9)


def test_the_log_likelihood_is_that_of_the_conditioned_joint_distribution() -> None:
    x, y = torch.rand(6, 1, dtype=torch.float64), torch.randn(6, 1, dtype=torch.float64)
    mean, deviation = posterior(x[:5], y[:5], x[5:], 0.4, 1.0, 0.2)
    found = gaussian_log_likelihood(y[5:], mean, deviation)

    def joint(points: int) -> torch.Tensor:
        diagonal = (0.04 + JITTER) * torch.eye(points, dtype=torch.float64)
        covariance = rbf_kernel(x[:points], x[:points], 0.4, 1.0) + diagonal
        normal: Any = MultivariateNormal(torch.zeros(points, dtype=torch.float64), covariance)
        return torch.as_tensor(normal.log_prob(y[:points, 0]))

    torch.testing.assert_close(found[0], joint(6) - joint(5), rtol=1e-10, atol=1e-10)


def test_meta_batches_are_episodes_and_values_are_independent() -> None:
    x, y, new = torch.randn(3, 4, 1), torch.randn(3, 4, 2), torch.randn(3, 6, 1)
    mean, deviation = posterior(x, y, new, 0.4, 1.0, 0.1)
    assert mean.shape == deviation.shape == (3, 6, 2)
    for i in range(3):
        for value in range(2):
            one = posterior(x[i], y[i, :, value, None], new[i], 0.4, 1.0, 0.1)
            torch.testing.assert_close(mean[i, :, value], one[0][:, 0])
            torch.testing.assert_close(deviation[i, :, value], one[1][:, 0])


def test_without_noise_it_goes_through_the_points() -> None:
    x = torch.linspace(-2, 2, 100)[:, None]
    y = torch.sin(3 * x)
    mean, deviation = posterior(x, y, x, 0.4, 1.0, 0.0)
    assert (mean - y).abs().max() < 1e-4
    assert deviation.max() < 1e-3
    assert deviation.isfinite().all()
    far = posterior(x, y, torch.tensor([[50.0]]), 0.4, 2.0, 0.0)
    assert [value.item() for value in far] == pytest.approx([0.0, math.sqrt(2 * (1 + JITTER))])
