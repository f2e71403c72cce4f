from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from fewshot.engine.episode_map import SMALL_FLOP, choose, map_episodes
from fewshot.engine.modes import How
from fewshot.engine.normalization import EpisodeNorm, forget_running_statistics
from fewshot.episodes.types import Episode, Examples, flatten, unflatten


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    torch.manual_seed(0)


def meta_batch(episodes: int, *shape: int) -> Episode:
    """Random inputs of `shape` = (n, ...), targets (n,)."""

    def examples() -> Examples:
        return Examples(
            torch.randn(episodes, *shape, dtype=torch.float64),
            torch.randn(episodes, shape[0]).double(),
        )

    return Episode(examples(), examples())


def tensor(examples: Examples) -> Tensor:
    assert isinstance(examples.inputs, Tensor)
    return examples.inputs


def summary(one: Episode, norm: EpisodeNorm) -> dict[str, Tensor]:
    """Something of each part of an episode that has no axis B."""
    assert tensor(one.support).dim() == 2
    return {
        "support": tensor(one.support).sum(0),
        "query": (tensor(one.query).mean() * one.query.targets).sum(),
    }


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
@pytest.mark.parametrize("chunk", [None, 1, 2, 5, 9])
def test_the_result_does_not_depend_on_how_it_is_computed(parallel: How, chunk: int | None) -> None:
    batch = meta_batch(5, 4, 3)
    chunks = list(map_episodes(summary, batch, parallel, chunk))
    sizes = [len(result["query"]) for result in chunks]
    default = [1] * 5 if parallel == "loop" else [5]
    assert sizes == {None: default, 1: [1] * 5, 2: [2, 2, 1], 5: [5], 9: [5]}[chunk]
    support = torch.cat([result["support"] for result in chunks])
    query = torch.cat([result["query"] for result in chunks])
    torch.testing.assert_close(support, tensor(batch.support).sum(1), rtol=1e-12, atol=1e-12)
    expected = tensor(batch.query).mean((1, 2)) * batch.query.targets.sum(1)
    torch.testing.assert_close(query, expected, rtol=1e-12, atol=1e-12)


def test_a_chunk_is_computed_when_it_is_asked_for() -> None:
    calls: list[float] = []

    def function(one: Episode, norm: EpisodeNorm) -> Tensor:
        calls.append(tensor(one.query).sum().item())
        return one.query.targets

    results = map_episodes(function, meta_batch(4, 2, 3), "loop", episodes_per_chunk=2)
    assert not calls
    next(results)
    assert len(calls) == 2


def test_inputs_may_be_dicts() -> None:
    def examples() -> Examples:
        return Examples(
            {"tokens": torch.arange(12).view(3, 2, 2), "lengths": torch.ones(3, 2)},
            torch.ones(3, 2),
        )

    def function(one: Episode, norm: EpisodeNorm) -> Tensor:
        assert isinstance(one.support.inputs, dict)
        return one.support.inputs["tokens"].sum() + one.support.inputs["lengths"].sum()

    ways: tuple[How, ...] = ("loop", "vmap")
    for parallel in ways:
        (result,) = map_episodes(function, Episode(examples(), examples()), parallel, 3)
        assert result.tolist() == [8, 24, 40]


class Accelerated(Tensor):
    """A tensor that says it lies on an accelerator."""

    device = torch.device("cuda")


def test_auto_takes_vmap_for_small_networks_on_a_cpu_and_for_all_elsewhere() -> None:
    batch = meta_batch(2, 4, 10)  # 4 support examples of 10 values: 2 * 4 * 10 * width operations
    small, large = SMALL_FLOP // 80, SMALL_FLOP // 80 + 1
    assert choose(nn.Linear(10, small).double(), batch) == "vmap"
    assert choose(nn.Linear(10, large).double(), batch) == "loop"
    elsewhere = batch._replace(
        support=batch.support._replace(targets=batch.support.targets.as_subclass(Accelerated))
    )
    assert choose(nn.Linear(10, large).double(), elsewhere) == "vmap"
    assert choose(nn.LSTM(10, 3).double(), batch) == "loop"
    assert choose(nn.LSTM(10, 3).double(), elsewhere) == "loop"


@pytest.mark.parametrize("parallel", ["loop", "vmap"])
def test_nothing_leaks_into_the_callers_code(parallel: How) -> None:
    layer, x = nn.BatchNorm1d(3).double().eval(), torch.randn(4, 3, dtype=torch.float64)
    nn.init.constant_(layer.weight, 2.0)
    by_running_averages = 2 * x / (1 + 1e-5) ** 0.5
    flash = torch._C._get_flash_sdp_enabled()
    results = map_episodes(
        lambda one, norm: layer(tensor(one.query)).sum(), meta_batch(3, 4, 3), parallel, 1
    )
    for _ in results:
        torch.testing.assert_close(layer(x), by_running_averages, rtol=1e-12, atol=1e-12)
        assert torch._C._get_flash_sdp_enabled() == flash
    torch.testing.assert_close(layer(x), by_running_averages, rtol=1e-12, atol=1e-12)


def test_nothing_leaks_out_of_a_generator_that_is_given_up() -> None:
    layer, x = nn.BatchNorm1d(3).double().eval(), torch.randn(4, 3, dtype=torch.float64)
    outside = layer(x)
    results = map_episodes(
        lambda one, norm: layer(tensor(one.query)).sum(), meta_batch(3, 4, 3), "loop"
    )
    next(results)
    del results
    assert torch.equal(layer(x), outside)

    def fails(one: Episode, norm: EpisodeNorm) -> Tensor:
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        list(map_episodes(fails, meta_batch(3, 4, 3), "loop"))
    assert torch.equal(layer(x), outside)


class Attention(nn.Module):
    """Self-attention over the examples, then a linear output."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.head = nn.Linear(3, 12), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x)[None, None].chunk(3, -1)
        out: Tensor = self.head(F.scaled_dot_product_attention(q, k, v)[0, 0]).squeeze(-1)
        return out


class Normalised(nn.Module):
    """Linear, affine batch normalisation, ReLU, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.norm(self.first(x)).relu()).squeeze(-1)
        return out


def adapted_loss(network: nn.Module, weights: Mapping[str, Tensor], one: Episode) -> Tensor:
    """The query loss after one gradient step on the support."""

    def loss(w: dict[str, Tensor], part: Examples) -> Tensor:
        outputs: Tensor = functional_call(network, w, (part.inputs,))
        return F.mse_loss(outputs, part.targets)

    gradients = grad(loss)(dict(weights), one.support)
    return loss({name: weights[name] - 0.1 * gradients[name] for name in weights}, one.query)


def meta_gradient(network: nn.Module, losses: Tensor) -> Tensor:
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(losses.mean(), list(network.parameters()))]
    )


@pytest.mark.parametrize("make", [Attention, Normalised])
def test_loop_and_vmap_give_the_same_second_derivatives(make: type[nn.Module]) -> None:
    network, batch = make().double(), meta_batch(3, 4, 3)
    forget_running_statistics(network)
    weights = dict(network.named_parameters())
    gradients = {
        parallel: meta_gradient(
            network,
            torch.cat(
                list(
                    map_episodes(
                        lambda one, norm: adapted_loss(network, weights, one), batch, parallel
                    )
                )
            ),
        )
        for parallel in ("loop", "vmap")
    }
    assert gradients["loop"].abs().max() > 1e-3
    torch.testing.assert_close(gradients["vmap"], gradients["loop"], rtol=1e-12, atol=1e-13)


def test_plain_vmap_is_wrong_which_is_why_the_engine_exists() -> None:
    # pytorch/functorch#534. If this fails, torch has been mended: EpisodeNorm.exact_vmap may go
    # once the oldest supported torch has the remedy.
    network, batch = Normalised().double(), meta_batch(3, 4, 3)
    forget_running_statistics(network)
    weights = dict(network.named_parameters())
    (right,) = map_episodes(lambda one, norm: adapted_loss(network, weights, one), batch, "loop", 3)
    with EpisodeNorm(exact_vmap=False):
        tensors, structure = flatten(batch)  # vmap takes no None, which marks are
        naive = vmap(lambda *one: adapted_loss(network, weights, unflatten(structure, one)))(
            *tensors
        )
    # the value is right, the gradient is not
    torch.testing.assert_close(naive, right, rtol=1e-12, atol=1e-12)
    expected = meta_gradient(network, right)
    error = (meta_gradient(network, naive) - expected).abs().max() / expected.abs().max()
    assert error > 1e-5
