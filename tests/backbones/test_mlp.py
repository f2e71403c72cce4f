from typing import Any

import pytest
import torch

from fewshot.backbones import MLP
from fewshot.errors import FewshotError


@pytest.mark.parametrize(
    ("norm", "axis", "linears"),
    [("none", None, (0, 2)), ("layer", 1, (0, 3)), ("batch", 0, (0, 3))],
)
def test_the_features_are_those_of_the_definition(
    norm: Any, axis: int | None, linears: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    network = MLP(6, (5, 4), norm).double()
    assert network.out_features == 4
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    expected = x.reshape(7, 6)
    weights = dict(network.named_parameters())
    for i in linears:
        expected = expected @ weights[f"layers.{i}.weight"].T + weights[f"layers.{i}.bias"]
        if axis is not None:
            mean = expected.mean(axis, keepdim=True)
            expected = (expected - mean) / (
                (expected - mean).square().mean(axis, keepdim=True) + 1e-5
            ).sqrt()
        expected = expected.clamp(min=0)
    torch.testing.assert_close(network(x), expected, rtol=1e-12, atol=1e-12)


def test_no_hidden_layer_is_an_error() -> None:
    with pytest.raises(FewshotError, match=r"hidden is empty; give the MLP at least one layer"):
        MLP(3, ())


def test_inputs_of_another_size_are_an_error() -> None:
    with pytest.raises(
        FewshotError, match="built for in_features 3, the benchmark gives 4; set in_features"
    ):
        MLP(3)(torch.rand(2, 4))
    with pytest.raises(FewshotError, match="the benchmark gives a dict"):
        MLP(3)({"tokens": torch.rand(2, 3)})
