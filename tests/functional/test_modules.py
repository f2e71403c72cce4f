"""Any module with other weights: its modes, second derivatives, vmap, compiled, implicit."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.errors import FewshotError
from fewshot.functional import (
    Adam,
    call,
    gradient_steps,
    implicit,
    load_weights,
    map_episodes,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("double")


class Attentive(nn.Module):
    """Attention, normalisations with affine parts, and a named argument."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm, self.batch, self.head = nn.LayerNorm(4), nn.BatchNorm1d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        x = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        outputs: Tensor = self.head(torch.tanh(self.batch(x.mean(1))))
        return scale * outputs


def module() -> Attentive:
    torch.manual_seed(0)
    network = Attentive()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


def test_a_call_is_the_module_with_these_weights_and_leaves_it_alone() -> None:
    network, x = module(), torch.randn(5, 3, 4)
    weights = {name: torch.randn_like(w) for name, w in weights_of(network).items()}
    before = copy.deepcopy(network.state_dict())
    for train in (True, False):
        twin = copy.deepcopy(network).train(train)
        network.train(train)
        load_weights(twin, weights)
        torch.testing.assert_close(call(network, weights, x, scale=2.0), twin(x, scale=2.0))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    some = {"head.bias": torch.ones(2)}
    expected = network(x) - network.head.bias + 1
    torch.testing.assert_close(call(network, some, x), expected)


def test_weights_are_the_trainable_parameters_by_name() -> None:
    network = module()
    network.head.bias.requires_grad_(False)
    weights = weights_of(network)
    assert weights["norm.weight"] is network.norm.weight
    assert "head.bias" not in weights
    assert list(weights_of(network, "norm", "head.weight")) == [
        "norm.weight", "norm.bias", "head.weight",
    ]  # fmt: skip
    with pytest.raises(FewshotError, match="'hea' names no trainable parameter; those are att"):
        weights_of(network, "hea")
    with pytest.raises(FewshotError, match="weight has no shape yet; call the module"):
        weights_of(nn.LazyLinear(2))
    with pytest.raises(FewshotError, match="'nom' is no parameter of Attentive; those are"):
        load_weights(network, {"head.weight": torch.zeros(2, 4), "nom": torch.ones(1)})
    with pytest.raises(FewshotError, match=r"head\.weight has shape \(2, 4\), the weight \(2,\)"):
        load_weights(network, {"norm.bias": torch.zeros(4), "head.weight": torch.ones(2)})
    assert network.norm.bias.any()
    assert network.head.weight.any(), "nothing was copied"


def adapted_loss(network: nn.Module, support: Any, query: Any) -> Tensor:
    *_, last = gradient_steps(
        lambda w: F.mse_loss(call(network, w, support[0]), support[1]),
        weights_of(network),
        Adam(0.05),
        2,
    )
    return F.mse_loss(call(network, last, query[0]), query[1])


def data() -> tuple[Any, Any]:
    torch.manual_seed(1)
    return tuple((torch.randn(3, 6, 3, 4), torch.randn(3, 6, 2)) for _ in range(2))  # type: ignore[return-value]


@pytest.mark.parametrize("train", [True, False])
def test_meta_gradients_are_those_of_finite_differences_through_every_layer(train: bool) -> None:
    network = module().train(train)
    (support, query) = (tuple(t[0] for t in part) for part in data())
    loss = adapted_loss(network, support, query)
    slopes = torch.autograd.grad(loss, list(network.parameters()))
    torch.manual_seed(2)
    direction = [torch.randn_like(p) for p in network.parameters()]
    values = []
    for sign in (1, -1):
        twin = copy.deepcopy(network)
        with torch.no_grad():
            for parameter, d in zip(twin.parameters(), direction, strict=True):
                parameter.add_(sign * 1e-5 * d)
        values.append(adapted_loss(twin, support, query).item())
    expected = (values[0] - values[1]) / 2e-5
    found = sum((s * d).sum().item() for s, d in zip(slopes, direction, strict=True))
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "options", [{"how": "vmap"}, {"how": "vmap", "chunk": 2}, {"compile": True},
                {"how": "vmap", "compile": True}],
)  # fmt: skip
@pytest.mark.usefixtures("as_traced")
@pytest.mark.parametrize("train", [True, False])
def test_episodes_are_the_same_however_they_are_mapped(options: Any, train: bool) -> None:
    network, (support, query) = module().train(train), data()
    options = options | ({"module": network} if "compile" in options else {})
    rate = torch.tensor(0.1, requires_grad=True)  # read by the function, no parameter of the module

    def one(support: Any, query: Any) -> dict[str, Tensor]:
        *_, last = gradient_steps(
            lambda w: F.mse_loss(call(network, w, support[0]), support[1]),
            weights_of(network),
            rate,
            2,
        )
        loss = F.mse_loss(call(network, last, query[0]), query[1])
        return {"loss": loss + adapted_loss(network, support, query), "last": last["head.bias"]}

    wanted = [rate, *network.parameters()]
    ways: tuple[dict[str, Any], ...] = ({}, options)
    results = [map_episodes(one, **way)(support, query) for way in ways]
    slopes = [torch.autograd.grad(r["loss"].mean(), wanted) for r in results]
    assert results[0]["last"].shape == (3, 2)
    torch.testing.assert_close(results[1]["last"], results[0]["last"], rtol=1e-9, atol=1e-10)
    for one_slope, other in zip(*slopes, strict=True):
        torch.testing.assert_close(other, one_slope, rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("as_traced")
def test_compiled_episodes_see_a_module_that_changes() -> None:
    network, (support, query) = module(), data()
    mapped = map_episodes(
        lambda *parts: adapted_loss(network, *parts), compile=True, module=network
    )
    for train in (True, False):
        network.train(train)
        found = mapped(support, query)
        expected = map_episodes(lambda *parts: adapted_loss(network, *parts))(support, query)
        torch.testing.assert_close(found, expected)


def test_what_cannot_be_mapped_is_refused_in_one_line() -> None:
    with pytest.raises(FewshotError, match="compile needs to know the module"):
        map_episodes(lambda x: x, compile=True)
    with pytest.raises(FewshotError, match="chunk is 0; set chunk >= 1"):
        map_episodes(lambda x: x, "vmap", chunk=0)
    with pytest.raises(FewshotError, match="first axes of 2, 3; give every tensor"):
        map_episodes(lambda x, y: x)(torch.ones(2), torch.ones(3))
    with pytest.raises(FewshotError, match="first axes of None; give"):
        map_episodes(lambda x: x)(torch.tensor(1.0))


def test_the_implicit_gradient_is_that_of_the_closed_form() -> None:
    """Ridge regression: w = (X'X + n l I)^-1 X'y, differentiated by l and by the data."""
    torch.manual_seed(0)
    x, y, strength = torch.randn(9, 3), torch.randn(9), torch.tensor(0.3, requires_grad=True)
    y.requires_grad_()

    def ridge(w: dict[str, Tensor]) -> Tensor:
        return (x @ w["w"] - y).square().sum() / 2 + strength * w["w"].square().sum() / 2

    exact = torch.linalg.solve(x.T @ x + strength * torch.eye(3), x.T @ y)
    solved = implicit(ridge, {"w": exact.detach()})["w"]
    assert torch.equal(solved, exact)
    for one, other in zip(
        torch.autograd.grad(solved.pow(3).sum(), [strength, y]),
        torch.autograd.grad(exact.pow(3).sum(), [strength, y]),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    with pytest.raises(FewshotError, match="cg_steps is 0; set cg_steps >= 1"):
        implicit(ridge, {"w": exact}, cg_steps=0)


def test_the_implicit_gradient_of_an_early_stop_is_damped() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    damped = implicit(lambda w: (w["w"] - x).square().sum() / 2, {"w": torch.ones(1)}, damping=1.0)
    (slope,) = torch.autograd.grad(damped["w"].sum(), x)
    assert slope.item() == pytest.approx(0.5)  # 1 / (1 + damping)
