"""Regions of a traced graph: which are alike, and that together they do what was traced."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch._dynamo.utils import counters
from torch.fx.experimental.proxy_tensor import make_fx

from fewshot.engine.compiling.regions import compiled_by_region, end_region

# The compiler, called here by itself, causes it; `fewshot.engine.compiling.compiler` ignores it.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:The \.grad attribute of a Tensor that is not a leaf:UserWarning"
)
Step = Callable[..., Tensor]
X = torch.linspace(-1, 1, 9, dtype=torch.float64).view(3, 3).requires_grad_()


def repeated(step: Step, count: int = 4) -> Callable[..., Tensor]:
    """The function of `count` steps from its first argument, each a region, and a final cosine."""

    def function(x: Tensor, *others: Tensor) -> Tensor:
        for number in range(count):
            end_region()
            x = step(x, number, *others)
            end_region()
        return x.cos()

    return function


def graphs_of(
    function: Callable[..., Tensor], *arguments: Tensor, backend: str = ""
) -> list[fx.GraphModule]:
    """What is compiled of a function, once seen to give its values and derivatives."""
    graphs: list[fx.GraphModule] = []

    def compile(graph: fx.GraphModule) -> nn.Module:
        graphs.append(graph)
        compiled: Any = (
            torch.compile(graph, backend=backend, fullgraph=True, dynamic=False)
            if backend
            else graph
        )
        assert isinstance(compiled, nn.Module)
        return compiled

    compiled = compiled_by_region(make_fx(function, decomposition_table={})(*arguments), compile)
    for _ in range(2):
        found = []
        for one in (function, compiled):
            given = [
                argument.detach().clone().requires_grad_(argument.requires_grad)
                for argument in arguments
            ]
            value = one(*given)
            slopes = torch.autograd.grad(
                value.sum(), [argument for argument in given if argument.requires_grad]
            )
            found.append((value, *slopes, *given))
        torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    return graphs


@pytest.mark.parametrize("count", [2, 3, 8])
def test_steps_that_are_alike_are_compiled_once(count: int) -> None:
    step, end = graphs_of(repeated(lambda x, number: x.sin() * 2, count), X)
    assert [
        node.target
        for node in step.graph.find_nodes(op="call_function", target=torch.ops.aten.sin.default)
    ]
    assert [
        node.target
        for node in end.graph.find_nodes(op="call_function", target=torch.ops.aten.cos.default)
    ]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        pytest.param(lambda x, number: x * (number + 1), 1, id="numbers"),
        pytest.param(lambda x, number: (x.sin, x.abs, x.exp, x.tanh)[number](), 1, id="operations"),
        pytest.param(lambda x, number: torch.cat([x, x[:1]]), 1, id="shapes"),
        pytest.param(
            lambda x, number: x.to((torch.float64, torch.float32)[number // 2]).sin(), 2, id="types"
        ),
        pytest.param(lambda x, number: x.t().sin(), 3, id="strides"),
        pytest.param(lambda x, number, y: x.sin() * (x, y)[number // 2], 3, id="inputs"),
    ],
)
def test_what_differs_is_compiled_apart(step: Step, expected: int) -> None:
    """One graph, where no two steps are alike.

    Or one for each kind of them, and one for the rest.
    """
    others = (X.detach() + 1,) if "y" in step.__code__.co_varnames else ()
    assert len(graphs_of(repeated(step), X, *others)) == expected


def test_steps_that_read_other_entries_are_alike() -> None:
    rates = torch.rand(4, 2, dtype=torch.float64).requires_grad_()
    assert (
        len(graphs_of(repeated(lambda x, number, rates: x - rates[number][1] * x.exp()), X, rates))
        == 2
    )


def test_neighbours_that_are_alone_are_one_graph() -> None:
    def function(x: Tensor) -> Tensor:
        for change in (Tensor.sin, Tensor.exp, Tensor.cos, Tensor.cos, Tensor.tanh, Tensor.square):
            x = change(x)
            end_region()
        return x + 1

    aten = torch.ops.aten
    begin, cosine, end = (
        [
            node.target
            for node in graph.graph.nodes
            if node.op == "call_function" and node.target != aten.detach.default
        ]
        for graph in graphs_of(function, X)
    )
    assert begin == [aten.sin.default, aten.exp.default]
    assert cosine == [aten.cos.default]
    assert end == [aten.tanh.default, aten.pow.Tensor_Scalar, aten.add.Tensor]


def test_values_of_all_steps_can_be_read_at_the_end() -> None:
    def function(x: Tensor) -> Tensor:
        values = list(itertools.accumulate(range(3), lambda value, _: _step(value), initial=x))
        return torch.stack(values).prod(0)

    assert len(graphs_of(function, X)) == 2


def _step(x: Tensor) -> Tensor:
    end_region()
    x = x.sin() + x
    end_region()
    return x


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_value_may_be_changed_in_place(backend: str) -> None:
    def function(x: Tensor) -> Tensor:
        total = torch.zeros_like(x)
        for _ in range(3):
            end_region()
            x = x.sin()
            total.add_(x)
            end_region()
        return total.cos()

    graphs_of(function, X, backend=backend)


def test_a_kind_is_compiled_once_whatever_it_is_given() -> None:
    """A parameter and a tensor, and strides of length-1 axes, are nothing to compile anew for."""
    torch.manual_seed(0)
    weight = nn.Parameter(
        torch.rand(4, 1, 3, 3, dtype=torch.float64).to(memory_format=torch.channels_last)
    )
    assert weight.stride() != weight.flatten().view_as(weight).stride()
    torch._dynamo.reset()
    counters.clear()

    def function(x: Tensor) -> Tensor:
        w: Tensor = weight
        for _ in range(4):
            end_region()
            w = (w - torch.nn.functional.conv2d(x, w).sin().mean() * w).flatten().view(weight.shape)
            end_region()
        return w.sum() * x

    graphs = graphs_of(
        function, torch.rand(2, 1, 5, 5, dtype=torch.float64).requires_grad_(), backend="eager"
    )
    assert counters["stats"]["unique_graphs"] == len(graphs) == 2


def test_random_numbers_are_drawn_anew_in_each_step() -> None:
    def function(x: Tensor) -> Tensor:
        for _ in range(3):
            end_region()
            x = x + torch.rand_like(x)
            end_region()
        return x - x.detach()[:, :1]

    graphs: list[Any] = []
    traced = make_fx(function, decomposition_table={})(X)
    compiled = compiled_by_region(traced, lambda graph: graphs.append(graph) or graph)  # type: ignore[func-returns-value]
    assert len(graphs) == 2
    torch.manual_seed(0)
    expected = function(X)
    torch.manual_seed(0)
    torch.testing.assert_close(compiled(X), expected)
