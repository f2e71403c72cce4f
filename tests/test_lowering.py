"""Our forms of batch normalisation and max-pooling for a compiler, against torch's operations.

Where they are taken.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._functorch.aot_autograd import aot_module
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._guards import detect_fake_mode
from torch._inductor.virtualized import V
from torch.nn.modules.utils import _pair

from fewshot import MAML, Episode, Examples
from fewshot.engine.compiling import lowering
from fewshot.engine.places import Windows, gather, pool, scatter

aten = torch.ops.aten
LAYOUTS = [torch.contiguous_format, torch.channels_last]
KERNELS = [(2, 2), (2, 3), (3, 3), (1, 1)]
OVERLAPPING: list[dict[str, Any]] = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {
        "kernel_size": (2, 3),
        "stride": (2, 1),
        "padding": (1, 1),
        "dilation": (1, 2),
        "ceil_mode": True,
    },
]


def maps(
    layout: torch.memory_format = torch.channels_last, dtype: torch.dtype = torch.float64
) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 5, 9, 8, dtype=dtype).to(memory_format=layout)


def same(ours: Tensor, torchs: Tensor) -> bool:
    """Bit for bit, and laid out alike."""
    return (
        torch.equal(ours, torchs)
        and ours.dtype == torchs.dtype
        and ours.stride() == torchs.stride()
    )


def windows(kernel: tuple[int, int], width: int = 8, floats: bool = True) -> list[int]:
    return Windows((9, width), kernel, kernel, (0, 0), (1, 1), False, floats).flat


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_pooling_and_its_derivatives_are_those_of_torchs_kernels(
    kernel: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = maps(layout, dtype).round(decimals=0)  # values that are alike: the first of them counts
    flat = windows(kernel, floats=dtype == torch.float64)
    values, places = pool(x, flat)
    for ours, torchs in zip(lowering.pooled(x, flat), (values, places), strict=True):
        assert same(ours, torchs)
    some = torch.randn_like(values)
    assert same(lowering.scattered(some, places, flat), scatter(some, places, flat))
    assert same(lowering.gathered(x, places, flat), gather(x, places, flat))


def test_places_in_wide_maps_take_more_than_a_byte() -> None:
    x = torch.randn(1, 2, 9, 300).to(memory_format=torch.channels_last)
    flat = windows((2, 2), width=300, floats=False)
    values, places = lowering.pooled(x, flat)
    assert places.dtype == torch.int32
    assert places.max() == 301
    assert same(lowering.gathered(x, places, flat), values)
    assert same(lowering.scattered(values, places, flat), scatter(*pool(x, flat), flat))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("affine", [True, False])
def test_batch_normalisation_and_its_derivative_are_torchs(
    affine: bool, layout: torch.memory_format
) -> None:
    # large means: what a difference of squares would lose
    x = 3 * maps(layout) + torch.arange(5).view(5, 1, 1) * 100.0
    weight, bias = (torch.randn(5, dtype=torch.float64) if affine else None for _ in range(2))
    torchs = aten._native_batch_norm_legit.no_stats(x, weight, bias, True, 0.0, 1e-5)
    ours = lowering.normalised(x, weight, bias, True, 0.0, 1e-5)
    torch.testing.assert_close(ours, torchs, rtol=1e-12, atol=1e-12)
    assert ours[0].stride() == torchs[0].stride()
    gradient = torch.randn_like(x)
    for mask in ([True, True, True], [True, False, False]):
        rest = weight, None, None, *torchs[1:], True, 1e-5, mask
        expected = aten.native_batch_norm_backward(gradient, x, *rest)
        found = lowering.normalised_backward(gradient, x, *rest)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-11, atol=1e-11)
        assert found[0].stride() == expected[0].stride()
        for one, other, wanted in zip(found[1:], expected[1:], mask[1:], strict=True):
            assert (one is not None) == wanted
            if one is not None and affine:
                torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_variance_of_float32_maps_far_from_zero() -> None:
    x = maps(dtype=torch.float32) + 1000
    _, _, inverse = lowering.normalised(x, None, None, True, 0.0, 0.0)
    expected = x.double().var((0, 2, 3), correction=0).rsqrt()
    torch.testing.assert_close(inverse.double(), expected, rtol=1e-4, atol=0)


def test_lower_precision_is_reckoned_in_float32() -> None:
    x, gradient = maps(dtype=torch.bfloat16), maps(dtype=torch.bfloat16).flip(0)
    weight, bias = torch.randn(5), torch.randn(5)
    y, mean, inverse = lowering.normalised(x, weight, bias, True, 0.0, 1e-5)
    exact = lowering.normalised(x.float(), weight, bias, True, 0.0, 1e-5)
    assert same(y, exact[0].bfloat16())
    assert same(mean, exact[1])
    assert same(inverse, exact[2])
    rest = None, None, mean, inverse, True, 1e-5, [True] * 3
    found = lowering.normalised_backward(gradient, x, weight, *rest)
    exact_slopes = lowering.normalised_backward(gradient.float(), x.float(), weight, *rest)
    assert same(found[0], exact_slopes[0].bfloat16())
    assert found[1] is not None
    assert exact_slopes[1] is not None
    assert same(found[1], exact_slopes[1])


@pytest.mark.parametrize("shape", [(3, 5, 9, 8), (12, 5), (3, 5, 2, 4, 4)])
def test_what_are_no_maps_keeps_torchs_form(shape: tuple[int, ...]) -> None:
    from torch._inductor.decomposition import select_decomp_table

    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    forward = x, torch.ones(5), torch.zeros(5), True, 0.0, 1e-5
    (taken, mean, inverse), torchs = (
        table[lowering.NORM](*forward) for table in (lowering.table(), select_decomp_table())
    )
    backward = x.flip(0), x, torch.ones(5), None, None, mean, inverse, True, 1e-5, [True] * 3
    slopes = [
        table[lowering.NORM_BACKWARD](*backward)[0]
        for table in (lowering.table(), select_decomp_table())
    ]
    # The forms differ in the order of summation alone.
    assert torch.equal(taken, torchs[0]) == torch.equal(*slopes) == (len(shape) != 4)


def test_the_derivative_by_running_statistics_keeps_torchs_form() -> None:
    x, mean, variance = (
        maps(),
        torch.randn(5, dtype=torch.float64),
        torch.rand(5, dtype=torch.float64) + 1,
    )
    arguments = (
        x.flip(0),
        x,
        torch.ones_like(mean),
        mean,
        variance,
        mean[:0],
        mean[:0],
        False,
        1e-5,
        [True] * 3,
    )
    found = lowering.table()[lowering.NORM_BACKWARD](*arguments)
    torch.testing.assert_close(found, aten.native_batch_norm_backward(*arguments))


@pytest.mark.parametrize("operation", [pool, scatter, gather])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_operations_are_what_a_compiler_expects(
    operation: Any, layout: torch.memory_format
) -> None:
    x, flat = maps(layout), windows((2, 2))
    values, places = pool(x, flat)
    arguments = {pool: (x,), scatter: (values, places), gather: (x, places)}[operation]
    first, *rest = arguments
    checks = "test_schema", "test_autograd_registration", "test_faketensor"
    torch.library.opcheck(operation, (first.requires_grad_(), *rest, flat), test_utils=checks)


class Pooled(nn.Module):
    """A network of blocks of a convolution and a max-pooling."""

    out_features = 4

    def __init__(self, layout: torch.memory_format, blocks: int = 1, **windows: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential()
        for channels in (1, *(4,) * (blocks - 1)):
            self.layers.extend([nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()])
            self.layers.append(nn.MaxPool2d(**windows))
        self.layers.to(memory_format=layout)

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.layers(images).mean((2, 3))
        return features


@pytest.mark.parametrize(
    ("backbone", "episode_parallel", "ours"),
    [
        (Pooled(torch.channels_last, kernel_size=2), "loop", True),
        (Pooled(torch.channels_last, kernel_size=2), "vmap", False),
        (Pooled(torch.contiguous_format, kernel_size=2), "loop", True),
        *((Pooled(torch.channels_last, **windows), "loop", False) for windows in OVERLAPPING),
    ],
)
def test_the_traced_loop_pools_so_where_it_fits(
    backbone: nn.Module, episode_parallel: Any, ours: bool, compiled: list[Any]
) -> None:
    labels = torch.arange(2).repeat(2, 1)
    examples = Examples(torch.rand(2, 2, 1, 8, 8), labels)
    arguments: dict[str, Any] = {
        "task": {"kind": "classification", "way": 2},
        "inner_lr": 0.1,
        "inner_steps": 1,
    }
    learner = MAML(backbone, **arguments, episode_parallel=episode_parallel, compile=True)
    plain = MAML(backbone, **arguments, episode_parallel="loop")
    plain.load_state_dict(learner.state_dict())
    found, expected = (
        torch.cat(
            [outcome.outputs for outcome in one.run(Episode(examples, examples), training=True)]
        )
        for one in (learner, plain)
    )
    torch.testing.assert_close(found, expected)
    names = {str(node.target) for node in compiled[0].graph.nodes}
    assert ("fewshot.pool.default" in names) == ours
    assert ("fewshot.scatter.default" in names) == ours, "the inner gradient too"
    types = {
        node.meta["val"][1].dtype
        for node in compiled[0].graph.nodes
        if "fewshot.pool" in str(node.target)
    }
    assert types == ({torch.float32} if ours else set()), (
        "bytes would take the compiled code three times as long"
    )


@pytest.mark.parametrize(
    ("dtype", "mixed", "tolerance"), [(torch.float64, False, 1e-9), (torch.float32, True, 0.02)]
)
def test_the_meta_gradient_through_our_forms_is_that_of_the_loop(
    dtype: torch.dtype, mixed: bool, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that the compiler does but for the machine code, which `make slow` has too."""
    lowered: list[Any] = []

    def as_it_is(graph: Any, inputs: Any) -> Any:
        lowered.append(graph)
        with V.set_fake_mode(detect_fake_mode(inputs)):  # as the compiler does
            lowering.expand(graph.graph)
        for node in graph.graph.nodes:
            # a compiler lays things out as it sees fit, and views what it likes
            if node.target == aten.view.default:
                node.target = aten.reshape.default
        graph.recompile()
        return make_boxed_func(graph)

    def compile(graph: Any, **options: Any) -> Any:
        forms = lowering.table()
        cut = min_cut_rematerialization_partition
        return aot_module(graph, fw_compiler=as_it_is, partition_fn=cut, decompositions=forms)

    monkeypatch.setattr(torch, "compile", compile)
    labels = torch.arange(2).repeat(1, 2)
    torch.manual_seed(0)
    examples = Examples(torch.rand(1, 4, 1, 16, 16, dtype=dtype), labels)
    learner = MAML(
        Pooled(torch.channels_last, blocks=2, kernel_size=2), task={"kind": "classification", "way": 2}, inner_lr=0.5,
        inner_steps=1, compile=True, episode_parallel="loop",
    ).to(dtype)  # fmt: skip

    def meta_gradient() -> Tensor:
        learner.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            for outcome in learner.run(Episode(examples, examples), training=True):
                torch.autograd.backward(outcome.loss.sum())
        return torch.cat([p.grad.flatten() for p in learner.parameters() if p.grad is not None])

    found = meta_gradient()
    nodes = [node for graph in lowered for node in graph.graph.nodes]
    names = {str(node.target) for node in nodes}
    largest = [node for node in nodes if node.target == aten.maximum.default]
    assert {node.meta["val"].dim() for node in largest} == {3}, (
        "four axes would be laid out as maps of other channels"
    )
    masks = [node for node in nodes if node.target == aten.eq.Tensor]
    assert masks
    assert not [user for node in masks for user in node.users if user.op == "output"], (
        "the place is given, not masks"
    )
    assert not [
        name for name in names if "fewshot" in name or "batch_norm" in name or "pool" in name
    ]
    learner.compiler = None
    expected = meta_gradient()
    assert (found - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kernel", [[2], [2, 2], [3, 2]])
def test_what_a_compiler_is_given_is_torchs_derivative(
    kernel: list[int], layout: torch.memory_format
) -> None:
    x = maps(layout)
    values, indices = torch.ops.aten.max_pool2d_with_indices(x, kernel, kernel)
    gradient = torch.randn_like(values)
    arguments = gradient, x, kernel, kernel, [0], [1], False, indices
    ours = lowering.unpooled(*arguments)
    assert torch.equal(ours, torch.ops.aten.max_pool2d_with_indices_backward(*arguments))
    assert ours.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("windows", OVERLAPPING)
def test_a_compiler_is_given_nothing_for_windows_that_overlap(windows: dict[str, Any]) -> None:
    x = maps(torch.contiguous_format)
    given = {
        "stride": windows["kernel_size"],
        "padding": 0,
        "dilation": 1,
        "ceil_mode": False,
        **windows,
    }
    kernel, stride, padding, dilation = (
        list(_pair(given[n])) for n in ("kernel_size", "stride", "padding", "dilation")
    )
    values, indices = torch.ops.aten.max_pool2d_with_indices(
        x, kernel, stride, padding, dilation, given["ceil_mode"]
    )
    result = lowering.unpooled(
        values, x, kernel, stride, padding, dilation, given["ceil_mode"], indices
    )
    assert result is NotImplemented
