"""Functions of several modes against written-out values, and their shares in a mixture."""

from typing import Any

import numpy as np
import pytest

from fewshot.datamodules import FunctionMixtureDataModule
from fewshot.datasets.function_modes import MODES, FunctionModes
from fewshot.errors import FewshotError

X = np.linspace(-5, 5, 21)[None]
EXPECTED: dict[str, Any] = {
    "sinusoid": lambda a, b: (0.1 + 4.9 * a) * np.sin(X - np.pi * b),
    "line": lambda a, b: (6 * a - 3) * X + 6 * b - 3,
    "quadratic": lambda a, b, c: (
        np.sign(2 * a - 1) * (0.02 + 0.13 * abs(2 * a - 1)) * (X - 6 * b + 3) ** 2 + 6 * c - 3
    ),
    "absolute": lambda a, b, c: (6 * a - 3) * abs(X - 6 * b + 3) + 6 * c - 3,
    "tanh": lambda a, b, c: (6 * a - 3) * np.tanh(X - 6 * b + 3) + 6 * c - 3,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("numbers", [(0.2, 0.7, 0.4), (0.9, 0.1, 0.8)])
def test_a_mode_has_its_values_and_noise_of_0_3(mode: str, numbers: tuple[float, ...]) -> None:
    tasks = FunctionModes(10, 11, (mode,))
    uniform = np.array([[0.5, *numbers, *np.zeros(21)]])
    assert tasks.numbers(21) == (uniform.shape[1], 21)
    normal = np.random.default_rng(0).standard_normal((1, 21))
    expected = EXPECTED[mode](*numbers[: len(MODES[mode].ranges)])
    np.testing.assert_allclose(tasks.targets(uniform, 0 * normal, X), expected, atol=1e-12)
    noisy = tasks.targets(uniform, normal, X)
    np.testing.assert_allclose(noisy - expected, 0.3 * normal, atol=1e-12)


def test_the_modes_of_a_mixture_are_equally_likely_and_kept_apart() -> None:
    tasks = FunctionModes(5, 5, ("line", "tanh", "quadratic"))
    rng = np.random.default_rng(0)
    uniform, normal = rng.random((600, tasks.numbers(10)[0])), np.zeros((600, 10))
    which = tasks.mode_of(uniform)
    assert np.abs(np.bincount(which) - 200).max() < 50
    x = tasks.inputs(uniform, normal)
    assert -5 <= x.min() < -4.9
    values = tasks.targets(uniform, normal, x)
    for i, name in enumerate(tasks.modes):
        alone = FunctionModes(5, 5, (name,)).targets(uniform, normal, x)
        np.testing.assert_array_equal(values[which == i], alone[which == i])


def test_a_benchmark_names_its_modes() -> None:
    data = FunctionMixtureDataModule(modes=5, shot=3, queries=4)
    assert data.protocol()["modes"] == "sinusoid, line, quadratic, tanh, absolute"
    assert data.tasks("val") == FunctionModes(3, 4, data.modes)
    alone = FunctionMixtureDataModule(modes=["tanh"])
    assert alone.protocol()["modes"] == "tanh"
    one, two = (FunctionMixtureDataModule(modes=m).stream("val")[7] for m in (2, 2))
    assert (one.query.targets == two.query.targets).all()


def test_unknown_modes_are_refused_in_one_line() -> None:
    with pytest.raises(
        FewshotError, match="modes has 'cubic'; there are sinusoid, line, quadratic"
    ):
        FunctionModes(modes=("line", "cubic"))
    with pytest.raises(FewshotError, match="modes is empty; name some of"):
        FunctionModes(modes=())
    with pytest.raises(FewshotError, match="modes"):
        FunctionMixtureDataModule(modes=["cubic"])  # type: ignore[list-item]
    with pytest.raises(FewshotError, match="modes"):
        FunctionMixtureDataModule(modes=4)  # type: ignore[arg-type]
