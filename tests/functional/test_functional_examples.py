"""The four examples of docs/functional.md: they run, they are short, their gradients are autograd's."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

PAGE = Path(__file__).resolve().parents[2] / "docs/functional.md"
EXAMPLES = dict(re.findall(r"^### (.+?)\n.*?```python\n(.*?)```", PAGE.read_text(), re.M | re.S))  # fmt: skip


def ran(title: str, times: int | None = None) -> dict[str, Any]:
    """The names that an example leaves, after all of its steps or fewer; nothing is drawn anew."""
    code = EXAMPLES[title]
    if times is not None:
        code = re.sub(r"^for _ in range\(\d+\)", f"for _ in range({times})", code, flags=re.M)
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    exec(compile(code, title, "exec"), found)
    return found


def linear(x: Tensor, w: dict[str, Tensor]) -> Tensor:
    """The network of two layers, written out."""
    hidden = torch.tanh(x @ w["0.weight"].T + w["0.bias"])
    return hidden @ w["2.weight"].T + w["2.bias"]


def close(ours: Any, theirs: Any) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_there_are_four_of_at_most_20_lines() -> None:
    assert list(EXAMPLES) == ["MAML", "Implicit gradients", "Learned rates", "Data reweighting"]
    for code in EXAMPLES.values():
        assert len([line for line in code.splitlines() if line.strip()]) <= 20
        assert max(map(len, code.splitlines())) <= 110


def test_maml() -> None:
    found = ran("MAML", 2)
    network, x = found["network"], torch.randn(20, 1)
    y = torch.sin(x)
    ours = torch.autograd.grad(found["query_loss"](x, y), list(network.parameters()))
    w = dict(network.named_parameters())
    for _ in range(3):
        loss = F.mse_loss(linear(x[:10], w), y[:10])
        slopes = torch.autograd.grad(loss, list(w.values()), create_graph=True)
        w = {name: w[name] - 0.05 * slope for name, slope in zip(w, slopes, strict=True)}
    outer = F.mse_loss(linear(x[10:], w), y[10:])
    close(ours, torch.autograd.grad(outer, list(network.parameters())))


def test_implicit_gradients_are_those_of_the_closed_form() -> None:
    found = ran("Implicit gradients", 1)
    x, y = (torch.cat([found[n], torch.ones(60, 1)], 1).double() if n == "x" else found[n].double()
            for n in "xy")  # fmt: skip
    log = found["log_strength"].detach().double().requires_grad_()
    a, b = x[:30], y[:30]
    w = torch.linalg.solve(a.T @ a / 30 + log.exp() * torch.eye(21, dtype=x.dtype), a.T @ b / 30)
    (expected,) = torch.autograd.grad(F.mse_loss(x[30:] @ w, y[30:]), log)
    *_, solved = found["gradient_steps"](
        found["penalised"], found["weights_of"](found["network"]), found["Adam"](0.02), 800, first_order=True
    )  # fmt: skip
    weights = found["implicit"](found["penalised"], solved, cg_steps=40)
    loss = F.mse_loss(found["call"](found["network"], weights, found["x"][30:]), found["y"][30:])
    (slope,) = torch.autograd.grad(loss, found["log_strength"])
    assert slope.item() == pytest.approx(expected.item(), rel=1e-2)


def test_learned_rates() -> None:
    found = ran("Learned rates", 2)
    network, rates, x = found["network"], found["rates"], torch.randn(20, 1)
    y, wanted = torch.sin(x), [*rates.values(), *network.parameters()]
    ours = torch.autograd.grad(found["query_loss"](x, y), wanted)
    w = dict(network.named_parameters())
    sums: dict[str, Tensor] = {}
    for _ in range(3):
        loss = F.mse_loss(linear(x[:10], w), y[:10])
        slopes = torch.autograd.grad(loss, list(w.values()), create_graph=True)
        sums = {n: 0.5 * sums.get(n, torch.zeros(())) + s for n, s in zip(w, slopes, strict=True)}
        w = {name: w[name] - rates[name] * sums[name] for name in w}
    close(ours, torch.autograd.grad(F.mse_loss(linear(x[10:], w), y[10:]), wanted))


def test_data_reweighting() -> None:
    found = ran("Data reweighting", 3)
    network, weigh = found["network"], found["weigh"]
    # one step from weights of 0: each example's slope is minus the rate times the product of its
    # gradient with that of the clean loss, at the weights before the optimizer's last step
    after, _ = found["gradient_step"](found["weighted"], found["weights_of"](network), 0.5)
    outer = F.cross_entropy(found["call"](network, after, found["clean_x"]), found["clean_y"])
    (ours,) = torch.autograd.grad(outer, weigh)
    parameters = list(network.parameters())
    clean = torch.autograd.grad(
        F.cross_entropy(network(found["clean_x"]), found["clean_y"]), parameters
    )
    losses = F.cross_entropy(network(found["x"]), found["y"], reduction="none")
    for i in range(0, 512, 100):
        own = torch.autograd.grad(losses[i], parameters, retain_graph=True)
        product = sum((a * b).sum() for a, b in zip(own, clean, strict=True))
        torch.testing.assert_close(ours[i], -0.5 * product, rtol=1e-4, atol=1e-6)


def test_they_do_what_they_are_for() -> None:
    found = ran("Data reweighting")
    right = (found["network"](found["x"]).argmax(1) == found["truth"]).double().mean()
    wrong = found["y"] != found["truth"]
    assert 0.2 < wrong.double().mean() < 0.3
    assert right > 0.9
    assert found["helps"][wrong].sum() < 0.2 * found["helps"].sum()
    found = ran("Learned rates")
    x = 10 * torch.rand(20, 1) - 5
    assert found["query_loss"](x, torch.sin(x - 1)) < 0.3
    found = ran("Implicit gradients", 8)
    assert found["log_strength"] > -3.5, "30 examples of 20 values need a penalty"
