"""Function tasks: ranges and moments of draws, values by formula, meta-batches as episodes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fewshot.datasets.functions import FunctionTasks, Harmonic, Sinusoid, SinusoidAndLine
from fewshot.datasets.revealed_sinusoid import RevealedSinusoid
from fewshot.episodes.types import Episode
from fewshot.errors import FewshotError

Array = NDArray[np.float64]
KINDS = (Sinusoid, SinusoidAndLine, Harmonic)
TASKS = 4000


def generators(count: int, seed: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, i]) for i in range(count)]


def points(episode: Episode) -> tuple[Array, Array]:
    """All x and y of an episode (S + Q,) or a meta-batch (B, S + Q), in float64."""
    x = torch.cat([torch.as_tensor(part.inputs) for part in episode], -2)
    y = torch.cat([part.targets for part in episode], -2)
    return x.squeeze(-1).double().numpy(), y.squeeze(-1).double().numpy()


def fit(basis: Array, y: Array) -> tuple[Array, Array]:
    """Least-squares coefficients (B, k) of `basis` (B, n, k), and the largest residuals (B,)."""
    coefficients = (np.linalg.pinv(basis) @ y[..., None])[..., 0]
    return coefficients, np.abs((basis @ coefficients[..., None])[..., 0] - y).max(-1)


def assert_uniform(values: Array, low: float, high: float) -> None:
    """In the range, with mean, variance and reach of a uniform variable (5 standard errors)."""
    slack = 1e-4 * (high - low)  # what float32 points do to a fitted parameter
    assert low - slack <= values.min() < low + 0.01 * (high - low)
    assert high - 0.01 * (high - low) < values.max() <= high + slack
    unit = (values.ravel() - low) / (high - low)
    assert abs(unit.mean() - 1 / 2) < 5 * math.sqrt(1 / 12 / unit.size)
    assert abs(unit.var() - 1 / 12) < 5 * math.sqrt(1 / 180 / unit.size)


def test_sinusoids_are_fitted_by_amplitudes_and_phases_of_the_paper() -> None:
    x, y = points(Sinusoid(shot=5, queries=45).draw_many(generators(TASKS))[0])
    assert_uniform(x, -5, 5)
    # a sin(x - phi) = (a cos phi) sin x - (a sin phi) cos x
    coefficients, residual = fit(np.stack([np.sin(x), np.cos(x)], -1), y)
    assert residual.max() < 1e-5
    amplitude, phase = (
        np.hypot(*coefficients.T),
        np.arctan2(-coefficients[:, 1], coefficients[:, 0]),
    )
    assert_uniform(amplitude, 0.1, 5)
    assert_uniform(phase, 0, math.pi)
    assert abs(np.corrcoef(amplitude, phase)[0, 1]) < 5 / math.sqrt(TASKS)


def test_sinusoid_and_line_is_half_of_each() -> None:
    x, y = points(SinusoidAndLine(shot=10, queries=40).draw_many(generators(TASKS))[0])
    assert_uniform(x, -5, 5)
    wave, wave_residual = fit(np.stack([np.sin(x), np.cos(x)], -1), y)
    line, line_residual = fit(np.stack([x, np.ones_like(x)], -1), y)
    is_wave, is_line = wave_residual < 1e-5, line_residual < 1e-5
    assert (is_wave ^ is_line).all()
    assert abs(is_wave.mean() - 0.5) < 5 * math.sqrt(0.25 / TASKS)
    assert_uniform(np.hypot(*wave[is_wave].T), 0.1, 5)
    assert_uniform(np.arctan2(-wave[is_wave, 1], wave[is_wave, 0]), 0, math.pi)
    assert_uniform(line[is_line, 0], -3, 3)
    assert_uniform(line[is_line, 1], -3, 3)


def test_harmonics_are_fitted_by_the_frequency_that_was_drawn() -> None:
    x, y = points(Harmonic(shot=20, queries=30).draw_many(generators(TASKS))[0])
    # the first number of a task
    frequency = np.array([5 + 2 * rng.random() for rng in generators(TASKS)])
    angle = frequency[:, None] * x
    waves = [np.sin(angle), np.cos(angle), np.sin(2 * angle), np.cos(2 * angle)]
    coefficients, residual = fit(np.stack(waves, -1), y)
    # 50 points that lie too close make a few fits ill-conditioned
    assert np.quantile(residual, 0.99) < 1e-5
    # a ~ N(0, 1) and b ~ U[0, 2 pi]: each coefficient a cos b, a sin b has mean 0 and variance 1/2
    # ...
    assert np.abs(coefficients.mean(0)).max() < 5 * math.sqrt(0.5 / TASKS)
    # ... and each amplitude the square's mean 1 and the fourth power's mean 3
    for pair in (coefficients[:, :2], coefficients[:, 2:]):
        square = (pair**2).sum(1)
        assert abs(square.mean() - 1) < 5 * math.sqrt(2 / TASKS)
        assert abs((square**2).mean() - 3) < 5 * math.sqrt(96 / TASKS)
        assert abs((np.cos(np.arctan2(pair[:, 1], pair[:, 0]))).mean()) < 5 * math.sqrt(0.5 / TASKS)


def test_harmonic_places_lie_around_one_centre_for_support_and_query() -> None:
    x, _ = points(Harmonic(shot=200, queries=200).draw_many(generators(1000))[0])
    support, query = x[:, :200], x[:, 200:]
    assert_uniform_spread(support.mean(1), -4, 4)
    # both means are the centre up to a variance of 1/200 each
    assert abs((support.mean(1) - query.mean(1)).std() - math.sqrt(2 / 200)) < 0.01
    assert abs(x.var(1, ddof=1).mean() - 1) < 5 * math.sqrt(2 / 400 / 1000)


def assert_uniform_spread(means: Array, low: float, high: float) -> None:
    """The moments of a uniform variable, and not much outside its range (the means are noisy)."""
    assert low - 0.3 < means.min() < low + 0.3
    assert high - 0.3 < means.max() < high + 0.3
    assert abs(means.mean() - (low + high) / 2) < 5 * (high - low) / math.sqrt(12 * means.size)
    assert abs(means.var() / ((high - low) ** 2 / 12) - 1) < 0.2


def expected_points(
    kind: type[FunctionTasks], count: int, rng: np.random.Generator
) -> tuple[Array, Array]:
    """The x and y of one task in scalars, from the documented order of its random numbers."""

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * rng.random()

    if kind is Sinusoid:
        amplitude, phase = uniform(0.1, 5), uniform(0, math.pi)
        x = [uniform(-5, 5) for _ in range(count)]
        return np.array(x), np.array([amplitude * math.sin(v - phase) for v in x])
    if kind is SinusoidAndLine:
        is_wave, first, second = rng.random() < 0.5, rng.random(), rng.random()
        x = [uniform(-5, 5) for _ in range(count)]
        if is_wave:
            return np.array(x), np.array(
                [(0.1 + 4.9 * first) * math.sin(v - math.pi * second) for v in x]
            )
        return np.array(x), np.array([(6 * first - 3) * v + 6 * second - 3 for v in x])
    w, b1, b2, mu = uniform(5, 7), uniform(0, 2 * math.pi), uniform(0, 2 * math.pi), uniform(-4, 4)
    a1, a2 = rng.standard_normal(), rng.standard_normal()
    x = [mu + rng.standard_normal() for _ in range(count)]
    return np.array(x), np.array(
        [a1 * math.sin(w * v + b1) + a2 * math.sin(2 * w * v + b2) for v in x]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(6))
def test_an_episode_is_the_formula_in_scalars(kind: type[FunctionTasks], seed: int) -> None:
    episode = kind(shot=3, queries=4).draw(np.random.default_rng(seed))
    x, y = expected_points(kind, 7, np.random.default_rng(seed))
    found_x, found_y = points(episode)
    np.testing.assert_allclose(found_x, x, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(found_y, y, rtol=1e-5, atol=2e-5)  # x is rounded to float32 first


@pytest.mark.parametrize("kind", KINDS)
@settings(deadline=None, max_examples=50)
@given(
    shot=st.integers(1, 20),
    queries=st.integers(1, 20),
    tasks=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_a_meta_batch_is_its_episodes_stacked(
    kind: type[FunctionTasks], shot: int, queries: int, tasks: int, seed: int
) -> None:
    distribution = kind(shot, queries)
    (many,) = distribution.draw_many(generators(tasks, seed))
    episodes = [distribution.draw(rng) for rng in generators(tasks, seed)]
    for i, size in enumerate((shot, queries)):
        for j in range(2):
            tensor = many[i][j]
            assert isinstance(tensor, torch.Tensor)
            assert tensor.shape == (tasks, size, 1)
            assert tensor.dtype == torch.float32
            assert tensor.is_contiguous()
            assert torch.equal(tensor, torch.stack([torch.as_tensor(e[i][j]) for e in episodes]))


@pytest.mark.parametrize("kind", KINDS)
def test_episodes_depend_on_the_generator_alone(kind: type[FunctionTasks]) -> None:
    distribution = kind(shot=5, queries=5)
    first, again, other = (
        points(distribution.draw_many(generators(2, seed))[0]) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.isclose(first, other).any()
    # one generator twice draws two tasks, one after the other
    rng = np.random.default_rng(3)
    both = points(distribution.draw_many([rng, rng])[0])
    rng = np.random.default_rng(3)
    one, two = points(distribution.draw(rng)), points(distribution.draw(rng))
    np.testing.assert_array_equal(both, np.stack([one, two], axis=1))


@pytest.mark.parametrize("arguments", [{"shot": 0}, {"queries": 0}, {"shot": -1, "queries": 3}])
def test_sizes_below_one_are_refused(arguments: dict[str, int]) -> None:
    name, value = next(iter(arguments.items()))
    with pytest.raises(FewshotError, match=f"^{name} is {value}; it must be at least 1$"):
        Sinusoid(**arguments)


def test_a_revealed_sinusoid_says_its_amplitude_in_training_alone() -> None:
    rngs = [np.random.default_rng([0, i]) for i in range(400)]
    (train,) = RevealedSinusoid(10, 10, training=True, seed=1).draw_many(rngs)
    inputs = torch.cat([train.support.inputs, train.query.inputs], 1)  # type: ignore[list-item]
    x, told = inputs[..., 0], inputs[..., 1:]
    places = told.argmax(-1)[:, 0]
    assert torch.equal(told, F.one_hot(places, 20).float()[:, None].expand_as(told))
    assert len(set(places.tolist())) == 16
    amplitudes = torch.linspace(0.1, 4, 20)[places]
    y = torch.cat([train.support.targets, train.query.targets], 1)[..., 0]
    noise = y - amplitudes[:, None] * x.sin()
    assert noise.std() == pytest.approx(0.1, rel=0.05)
    assert x.abs().max() <= 5
    (test,) = RevealedSinusoid(5, 200, training=False, seed=1).draw_many(rngs)
    assert isinstance(test.query.inputs, torch.Tensor)
    x, told = test.query.inputs[..., 0], test.query.inputs[..., 1:]
    assert 4.4 < x.abs().max() <= 4.5
    found = (test.query.targets[..., 0] * x.sin()).sum(1) / x.sin().square().sum(1)
    residual = test.query.targets[..., 0] - found[:, None] * x.sin()
    assert residual.abs().max() < 1e-5, "queries have no noise"
    assert 0.1 <= found.min() < 0.3
    assert 3.8 < found.max() <= 4
    place = told.argmax(-1)[:, 0].double()
    assert len(set(place.tolist())) == 20
    assert abs(torch.corrcoef(torch.stack([place, found.double()]))[0, 1]) < 0.15
