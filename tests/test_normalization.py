"""EpisodeNorm against the definitions, written out in elementary operations (float64)."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fewshot.engine.normalization import EpisodeNorm, forget_running_statistics

EPS = 1e-5


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64) * 2 + 1


def by_hand(x: Tensor, source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Batch normalisation of (n, C, ...) by the statistics of `source`."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = (1, -1) + (1,) * (x.dim() - 2)
    mean = source.mean(axes)
    variance = (source - mean.view(shape)).square().mean(axes)
    normal = (x - mean.view(shape)) / (variance + EPS).sqrt().view(shape)
    return normal * weight.view(shape) + bias.view(shape)


def batch_norm(features: int, dimensions: int) -> nn.modules.batchnorm._BatchNorm:
    """A layer whose affine part and running averages are not the trivial ones."""
    layer: nn.modules.batchnorm._BatchNorm = (nn.BatchNorm1d if dimensions < 4 else nn.BatchNorm2d)(
        features
    ).double()
    for tensor in (layer.weight, layer.bias, layer.running_mean):
        assert tensor is not None
        nn.init.normal_(tensor)
    return layer


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("exact_vmap", [True, False])
@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 5), (4, 3, 5, 2)])
def test_batch_norm_uses_the_batch_at_hand_and_leaves_the_averages(
    shape: tuple[int, ...], exact_vmap: bool, training: bool
) -> None:
    layer, x = batch_norm(3, len(shape)).train(training), values(*shape)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    before = layer.running_mean.clone(), layer.running_var.clone()
    with EpisodeNorm(exact_vmap):
        y = layer(x)
    torch.testing.assert_close(y, by_hand(x, x, layer.weight, layer.bias), rtol=1e-12, atol=1e-12)
    assert torch.equal(layer.running_mean, before[0])
    assert torch.equal(layer.running_var, before[1])


@pytest.mark.parametrize("exact_vmap", [True, False])
def test_replay_normalises_by_the_recorded_statistics_in_order(exact_vmap: bool) -> None:
    first, second = batch_norm(3, 4), batch_norm(3, 4)
    network = nn.Sequential(first, nn.ReLU(), second)
    support, query = values(6, 3, 2, 2), values(4, 3, 2, 2)
    with EpisodeNorm(exact_vmap) as norm:
        with norm.record() as statistics:
            recorded = network(support)
        with norm.replay(statistics):
            replayed = network(query)
        own = network(query)  # after both: the batch's own again
    hidden = by_hand(support, support, first.weight, first.bias).relu()
    torch.testing.assert_close(
        recorded, by_hand(hidden, hidden, second.weight, second.bias), rtol=1e-12, atol=1e-12
    )
    of_query = by_hand(query, support, first.weight, first.bias).relu()
    torch.testing.assert_close(
        replayed, by_hand(of_query, hidden, second.weight, second.bias), rtol=1e-12, atol=1e-12
    )
    of_query = by_hand(query, query, first.weight, first.bias).relu()
    torch.testing.assert_close(
        own, by_hand(of_query, of_query, second.weight, second.bias), rtol=1e-12, atol=1e-12
    )
    assert len(statistics) == 2


def test_running_averages_can_be_forgotten() -> None:
    network = nn.Sequential(
        batch_norm(3, 2), nn.InstanceNorm1d(3, track_running_stats=True), nn.LayerNorm(3)
    ).double()
    forget_running_statistics(network)
    assert not list(network.buffers())
    x, layer = values(6, 3), network[0]
    assert isinstance(layer, nn.BatchNorm1d)
    for training in (True, False):
        network.train(training)
        torch.testing.assert_close(
            layer(x), by_hand(x, x, layer.weight, layer.bias), rtol=1e-12, atol=1e-12
        )
    weights = dict(layer.named_parameters())
    # refused before
    gradients = grad(lambda w: functional_call(layer, w, (x,)).square().mean())(weights)
    assert set(gradients) == {"weight", "bias"}


def test_without_affine_parameters() -> None:
    layer, x = nn.BatchNorm1d(3, affine=False).double(), values(5, 3)
    expected = by_hand(x, x, torch.ones(3), torch.zeros(3))
    for exact_vmap in (True, False):
        with EpisodeNorm(exact_vmap) as norm:
            torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
            with norm.record():
                torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_the_mode_ends_with_its_block_even_when_that_fails() -> None:
    layer, x = batch_norm(3, 2).eval(), values(5, 3)
    outside = layer(x)  # by the running averages

    def fail(norm: EpisodeNorm) -> None:
        with norm, norm.record():
            raise RuntimeError("on purpose")

    norm = EpisodeNorm(exact_vmap=True)
    with pytest.raises(RuntimeError, match="on purpose"):
        fail(norm)
    assert norm.recorded is None
    assert torch.equal(layer(x), outside)


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "batch1d": (lambda: nn.BatchNorm1d(3), (6, 3)),
    "batch2d": (lambda: nn.BatchNorm2d(3), (4, 3, 2, 2)),
    "layer": (lambda: nn.LayerNorm(3), (6, 3)),
    "layer2": (lambda: nn.LayerNorm([2, 3]), (4, 2, 3)),
    "instance": (lambda: nn.InstanceNorm1d(3, affine=True), (4, 3, 5)),
    "instance_running": (
        lambda: nn.InstanceNorm2d(3, affine=True, track_running_stats=True),
        (4, 3, 2, 3),
    ),
}


def second_order(layer: nn.Module, weights: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """The gradient of a loss after one gradient step of the layer's own affine parameters."""

    def loss(w: dict[str, Tensor]) -> Tensor:
        y: Tensor = functional_call(layer, w, (x,))
        return (y.square() * torch.arange(y.numel(), dtype=y.dtype).view(y.shape)).mean()

    def after_step(w: dict[str, Tensor]) -> Tensor:
        gradients = grad(loss)(w)
        return loss({name: w[name] - 0.1 * gradients[name] for name in w})

    gradient: dict[str, Tensor] = grad(after_step)(weights)
    return gradient


def largest_difference(one: dict[str, Tensor], two: dict[str, Tensor]) -> float:
    """Relative to the largest value."""
    scale = max(value.abs().max().item() for value in one.values())
    return max((one[name] - two[name]).abs().max().item() for name in one) / scale


@pytest.mark.parametrize("kind", LAYERS)
def test_exact_vmap_gives_the_loops_second_derivatives(kind: str) -> None:
    make, shape = LAYERS[kind]
    layer = make().double()
    forget_running_statistics(layer)
    weights = {name: values(*p.shape) for name, p in layer.named_parameters()}
    batch = values(3, *shape)
    with EpisodeNorm(exact_vmap=False):
        looped = [second_order(layer, weights, x) for x in batch]
    expected = {name: torch.stack([one[name] for one in looped]) for name in weights}
    with EpisodeNorm(exact_vmap=True):
        exact = vmap(lambda x: second_order(layer, weights, x))(batch)
    assert largest_difference(expected, exact) < 1e-12


def test_instance_norm_of_a_tracking_layer_uses_the_example_at_hand() -> None:
    layer, x = nn.InstanceNorm1d(3, affine=True, track_running_stats=True).double(), values(4, 3, 5)
    nn.init.normal_(layer.weight)
    with EpisodeNorm(exact_vmap=True):
        y = layer(x)
    normal = (x - x.mean(2, keepdim=True)) / (x.var(2, correction=0, keepdim=True) + EPS).sqrt()
    expected = normal * layer.weight.view(1, 3, 1) + layer.bias.view(1, 3, 1)
    torch.testing.assert_close(y, expected, rtol=1e-12, atol=1e-12)
    assert layer.running_mean is not None
    assert torch.equal(layer.running_mean, torch.zeros(3))


def test_functions_called_by_keyword_are_rerouted_too() -> None:
    x, weight, bias = values(6, 3), values(3), values(3)
    with EpisodeNorm(exact_vmap=True):
        batch = F.batch_norm(
            x, running_mean=None, running_var=None, weight=weight, bias=bias, training=True, eps=EPS
        )
        layer = F.layer_norm(x, normalized_shape=[3], weight=weight, bias=bias)
    torch.testing.assert_close(batch, by_hand(x, x, weight, bias), rtol=1e-12, atol=1e-12)
    normal = (x - x.mean(1, keepdim=True)) / (x.var(1, correction=0, keepdim=True) + EPS).sqrt()
    torch.testing.assert_close(layer, normal * weight + bias, rtol=1e-12, atol=1e-12)
