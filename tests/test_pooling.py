"""Lean pooling against torch's own max-pooling: values, derivatives of every order, layout.

And what it keeps.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from graphs import nodes
from torch import Tensor, nn

from fewshot import MAML, Conv4, Episode, Examples
from fewshot.engine import places, pooling
from fewshot.engine.pooling import lean_pooling, max_pool2d
from fewshot.engine.rerouting import Rerouting

WINDOWS: list[dict[str, Any]] = [
    {"kernel_size": 2},
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {
        "kernel_size": (2, 3),
        "stride": (2, 1),
        "padding": (1, 1),
        "dilation": (1, 2),
        "ceil_mode": True,
    },
]
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(autouse=True)
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps count as large, three of them are three parts, and numbers are the same."""
    monkeypatch.setattr(pooling, "LARGE", 1)
    monkeypatch.setattr(places, "INDEX_BYTES", 1000)
    torch.manual_seed(0)


def maps(layout: torch.memory_format, width: int = 8, channels: int = 5) -> Tensor:
    return (
        torch.randn(3, channels, 9, width, dtype=torch.float64)
        .to(memory_format=layout)
        .requires_grad_()
    )


def graph(tensor: Tensor) -> set[str]:
    """The names of the operations that made a tensor."""
    return {node.name() for node in nodes(tensor)}


def graph_name(tensor: Tensor) -> str:
    """The name of the operation that made a tensor."""
    assert tensor.grad_fn is not None
    return tensor.grad_fn.name()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("windows", WINDOWS)
def test_values_and_three_derivatives_are_those_of_torch(
    windows: dict[str, Any], layout: torch.memory_format
) -> None:
    x = maps(layout)

    def derivatives(pool: Callable[..., Tensor]) -> list[Tensor]:
        value = pool(x, **windows)
        results = [value]
        for _ in range(3):
            (value,) = torch.autograd.grad((value**3).sum(), x, create_graph=True)
            results.append(value)
        return results

    for lean, native in zip(derivatives(max_pool2d), derivatives(F.max_pool2d), strict=True):
        assert torch.equal(lean, native)
    assert max_pool2d(x, **windows).stride() == F.max_pool2d(x, **windows).stride()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("windows", WINDOWS)
def test_against_finite_differences(
    windows: dict[str, Any], layout: torch.memory_format, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "INDEX_BYTES", 100)
    few = maps(layout, width=5, channels=2)  # twice as many values take four times as long
    assert torch.autograd.gradcheck(lambda x: max_pool2d(x, **windows), few)
    assert torch.autograd.gradgradcheck(lambda x: max_pool2d(x, **windows), few)


def test_under_the_gradients_of_torch_func() -> None:
    x = maps(torch.contiguous_format).detach()

    def slope_of_slope(pool: Callable[..., Tensor]) -> Tensor:
        slope = torch.func.grad(lambda maps: (pool(maps, 2) ** 3).sum())
        result: Tensor = torch.func.grad(lambda maps: (slope(maps) ** 3).sum())(x)
        return result

    assert torch.equal(slope_of_slope(max_pool2d), slope_of_slope(F.max_pool2d))


@pytest.mark.parametrize("traced", [False, True])
def test_under_vmap_of_a_network_that_maps_over_a_part_of_its_input(traced: bool) -> None:
    x = maps(torch.contiguous_format).detach()

    def slope_of_slope(pool: Callable[..., Tensor], axis: int) -> Tensor:
        slope = torch.func.grad(lambda maps: (pool(maps, 2) ** 3).sum())
        result: Tensor = torch.func.vmap(
            torch.func.grad(lambda maps: (slope(maps) ** 3).sum()), axis
        )(parts)
        return result

    def ours(input: Tensor, kernel_size: int) -> Tensor:
        result: Tensor = max_pool2d(input, kernel_size, traced=traced)
        return result

    parts = torch.stack([x, -x])
    for axis in (0, 1):  # of which the second are the maps
        assert torch.equal(slope_of_slope(ours, axis), slope_of_slope(F.max_pool2d, axis))
        parts = parts.transpose(0, 1)
    values = torch.randn(4, *F.max_pool2d(x, 2).shape, dtype=x.dtype)
    pulled = [
        torch.func.vmap(torch.func.vjp(partial(pool, kernel_size=2), x)[1])(values)
        for pool in (ours, F.max_pool2d)
    ]
    assert torch.equal(pulled[0][0], pulled[1][0]), (
        "of the derivative's arguments the values alone have the axis"
    )


@pytest.mark.parametrize(("width", "bytes_a_value"), [(254, 1), (255, 4)])
def test_keeps_a_byte_for_each_value_and_four_where_maps_are_wide(
    width: int, bytes_a_value: int
) -> None:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = maps(torch.channels_last, width)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = max_pool2d(x, 2)
    assert [tensor.nbytes for tensor in kept] == [y.numel() * bytes_a_value]
    (lean,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(lean, torch.autograd.grad(F.max_pool2d(x, 2).sum(), x)[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_in_lower_precision(dtype: torch.dtype) -> None:
    x = torch.randn(3, 5, 8, 8, dtype=dtype, requires_grad=True)
    weights = torch.randn(3, 5, 4, 4, dtype=dtype)
    lean, native = (
        torch.autograd.grad((pool(x, 2) * weights).sum(), x)[0]
        for pool in (max_pool2d, F.max_pool2d)
    )
    assert torch.equal(lean, native)


def test_what_is_small_or_has_no_gradient_or_no_batch_is_torchs_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = maps(torch.contiguous_format)
    with torch.no_grad():
        assert torch.equal(max_pool2d(x, 2), F.max_pool2d(x, 2))
    assert "MaxPool2D" in graph_name(max_pool2d(x[0], 2))
    assert torch.equal(
        max_pool2d(x, 2, return_indices=True)[1], F.max_pool2d(x, 2, return_indices=True)[1]
    )
    assert max_pool2d(x[:0], 2).shape == (0, 5, 4, 4)
    monkeypatch.setattr(pooling, "LARGE", x.nbytes + 1)
    assert "MaxPool2D" in graph_name(max_pool2d(x, 2))
    with pytest.raises(RuntimeError, match="kernel_size"):
        max_pool2d(x, (2, 2, 2))  # type: ignore[arg-type]


def test_modules_are_rerouted_inside_only() -> None:
    x, layer = maps(torch.contiguous_format), nn.MaxPool2d(2)
    with Rerouting(lean_pooling()):
        assert "_PoolBackward" in graph(layer(x))
    assert "_PoolBackward" not in graph(layer(x))


@pytest.mark.parametrize(
    ("arguments", "lean"),
    [({"episode_parallel": "loop"}, True), ({"episode_parallel": "vmap"}, False)],
)
def test_the_loop_of_the_engine_pools_so(arguments: dict[str, Any], lean: bool) -> None:
    labels = torch.arange(2).repeat(2, 1)
    examples = Examples(torch.rand(2, 2, 1, 16, 16), labels)
    task = {"kind": "classification", "way": 2}
    learner = MAML(Conv4(1, 16, width=8), task=task, inner_lr=0.1, inner_steps=1, **arguments)
    outcome, *_ = learner.run(Episode(examples, examples), training=True)
    assert ("_ScatterBackward" in graph(outcome.loss.sum())) == lean
