"""Rules against torch's own optimizers step by step, and what is differentiated against `higher`."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import gradcheck

from fewshot.errors import FewshotError
from fewshot.functional import (
    SGD,
    Adam,
    AdamW,
    RMSprop,
    Rule,
    call,
    gradient_step,
    gradient_steps,
    weights_of,
)

STEPS = 4
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, 0.9, dampening=0.3, weight_decay=0.02),
    "Nesterov": lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.02, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, 0.05, (0.8, 0.95), weight_decay=0.02),
    "AMSGrad": lambda p: torch.optim.Adam(p, 0.05, (0.8, 0.95), amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.05, (0.8, 0.95), weight_decay=0.1),
    "decoupled Adam": lambda p: torch.optim.Adam(p, 0.05, decoupled_weight_decay=True, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.02, weight_decay=0.02),
    "RMSprop with momentum": lambda p: torch.optim.RMSprop(p, 0.02, momentum=0.9, centered=True),
    "maximize": lambda p: torch.optim.SGD(p, 0.01, maximize=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, 0.1),
    "Adadelta": lambda p: torch.optim.Adadelta(p, 1.0),
    "Adamax": lambda p: torch.optim.Adamax(p, 0.05),
    "NAdam": lambda p: torch.optim.NAdam(p, 0.05),
    "RAdam": lambda p: torch.optim.RAdam(p, 0.05),
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("double")


def problem() -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2))
    return network, torch.randn(8, 3), torch.randn(8, 2)


def path_of_torch(make: Callable[[Any], torch.optim.Optimizer]) -> list[Tensor]:
    network, x, y = problem()
    optimizer = make(network.parameters())
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.autograd.backward(F.mse_loss(network(x), y))
        optimizer.step()
    return [p.detach() for p in network.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_are_those_of_torchs_optimizer(name: str) -> None:
    network, x, y = problem()
    weights = weights_of(network)
    *_, last = gradient_steps(
        lambda w: F.mse_loss(call(network, w, x), y),
        weights,
        OPTIMIZERS[name](network.parameters()),
        STEPS,
    )
    for ours, theirs in zip(last.values(), path_of_torch(OPTIMIZERS[name]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    start = problem()[0]
    assert all(
        torch.equal(w, p) for w, p in zip(network.parameters(), start.parameters(), strict=True)
    )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_comes_of_the_steps_has_the_derivative_of_finite_differences(name: str) -> None:
    torch.manual_seed(1)
    a, start = torch.rand(4) + 0.5, torch.randn(4)
    rule = OPTIMIZERS[name]([torch.zeros(1)])

    def after(w: Tensor, a: Tensor) -> Tensor:
        *_, last = gradient_steps(lambda w: (a * w["w"] ** 2 + w["w"]).sum(), {"w": w}, rule, 3)
        return last["w"]

    assert gradcheck(after, (start.requires_grad_(), a.requires_grad_()), atol=1e-6)


# `higher` adds eps before it corrects for the start, as torch once did: the same where it is
# nothing. It knows no AdamW, dampens the first gradient too, and warns of its own RMSprop.
OF_HIGHER: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "SGD": OPTIMIZERS["SGD"],
    "momentum": lambda p: torch.optim.SGD(p, 0.1, 0.9),
    "Nesterov": OPTIMIZERS["Nesterov"],
    "Adam": lambda p: torch.optim.Adam(p, 0.05, (0.8, 0.95), eps=1e-30, weight_decay=0.02),
    "AMSGrad": lambda p: torch.optim.Adam(p, 0.05, (0.8, 0.95), eps=1e-30, amsgrad=True),
    "Adadelta": OPTIMIZERS["Adadelta"],
}


@pytest.mark.parametrize("name", OF_HIGHER)
def test_meta_gradients_are_those_of_higher(name: str) -> None:
    higher = pytest.importorskip("higher")
    network, x, y = problem()
    optimizer = OF_HIGHER[name](network.parameters())
    with higher.innerloop_ctx(network, optimizer, copy_initial_weights=False) as (fast, steps):
        for _ in range(STEPS):
            steps.step(F.mse_loss(fast(x), y))
        theirs = torch.autograd.grad(fast(x).square().sum(), list(network.parameters()))
    *_, last = gradient_steps(
        lambda w: F.mse_loss(call(network, w, x), y), weights_of(network), optimizer, STEPS
    )
    ours = torch.autograd.grad(call(network, last, x).square().sum(), list(network.parameters()))
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


def test_meta_gradients_are_those_of_torchopt() -> None:
    torchopt = pytest.importorskip("torchopt")
    pairs: list[tuple[Any, Rule]] = [
        (torchopt.MetaSGD, SGD(0.1, momentum=0.9, nesterov=True)),
        (torchopt.MetaAdam, Adam(0.05)),
        (torchopt.MetaAdamW, AdamW(0.05)),
        (torchopt.MetaRMSProp, RMSprop(0.02)),
    ]
    options = [{"momentum": 0.9, "nesterov": True}, {}, {}, {}]
    for (theirs_of, rule), more in zip(pairs, options, strict=True):
        network, x, y = problem()
        parameters = list(network.parameters())
        twin = copy.deepcopy(network)
        inner = theirs_of(network, lr=rule.rate(0, ""), **more)
        for _ in range(STEPS):
            inner.step(F.mse_loss(network(x), y))
        theirs = torch.autograd.grad(network(x).square().sum(), parameters)

        def loss(w: Any, twin: nn.Module = twin, x: Tensor = x, y: Tensor = y) -> Tensor:
            return F.mse_loss(call(twin, w, x), y)

        *_, last = gradient_steps(loss, weights_of(twin), rule, STEPS)
        ours = torch.autograd.grad(call(twin, last, x).square().sum(), list(twin.parameters()))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", [SGD(0.1, momentum=0.9), Adam(0.05), AdamW(0.05), RMSprop(0.02)])
def test_a_weight_without_a_gradient_leaves_the_meta_gradient_a_number(rule: Rule) -> None:
    start = torch.ones(3, requires_grad=True)
    mask = torch.tensor([1.0, 0.0, 1.0])
    *_, last = gradient_steps(lambda w: (mask * w["w"]).square().sum(), {"w": start}, rule, 3)
    (slope,) = torch.autograd.grad(last["w"].sum(), start)
    assert slope.isfinite().all()
    assert slope[1] == (1 if rule != AdamW(0.05) else (1 - 0.05 * 1e-2) ** 3)


def test_numbers_of_a_rule_are_learned() -> None:
    start = torch.tensor([1.0, -2.0])

    def after(lr: Tensor, momentum: Tensor, decay: Tensor) -> Tensor:
        rule = SGD({"w": lr}, momentum=momentum, weight_decay=decay, nesterov=True)
        *_, last = gradient_steps(lambda w: w["w"].pow(4).sum(), {"w": start}, rule, 3)
        return last["w"]

    def by_adam(lr: Tensor, first: Tensor, second: Tensor) -> Tensor:
        rule = AdamW(lambda step, name: lr / (step + 1), (first, second))
        *_, last = gradient_steps(lambda w: w["w"].pow(4).sum(), {"w": start}, rule, 3)
        return last["w"]

    numbers = [torch.tensor(n, requires_grad=True) for n in (0.5, 0.1)]
    assert gradcheck(after, (torch.tensor([0.01, 0.02], requires_grad=True), *numbers))
    betas = [torch.tensor(n, requires_grad=True) for n in (0.01, 0.8, 0.9)]
    assert gradcheck(by_adam, betas)


@pytest.mark.parametrize("rule", [SGD(0.1, momentum=0.9), Adam(0.05), RMSprop(0.02, momentum=0.5)])
def test_single_steps_and_steps_in_a_row_are_the_same(rule: Rule) -> None:
    network, x, y = problem()

    def loss(w: Any) -> Tensor:
        return F.mse_loss(call(network, w, x), y)

    weights, state = weights_of(network), None
    for number in range(STEPS):
        weights, state = gradient_step(loss, weights, rule, state, number, clip=0.5)
    *_, last = gradient_steps(loss, weights_of(network), rule, STEPS, clip=0.5)
    assert all(torch.equal(weights[name], last[name]) for name in last)
    with pytest.raises(FewshotError, match="step 1 has no state; give what step 0 returned"):
        gradient_step(loss, weights, rule, number=1)


@pytest.mark.parametrize("rule", [SGD(0.1), SGD(0.1, momentum=0.9), Adam(0.05)])
def test_recomputed_steps_have_the_same_gradient(rule: Rule) -> None:
    network, x, y = problem()
    scale = torch.tensor(1.5, requires_grad=True)

    def slopes(**options: Any) -> list[Tensor]:
        *_, last = gradient_steps(
            lambda w: scale * F.mse_loss(call(network, w, x), y),
            weights_of(network),
            rule,
            STEPS,
            **options,
        )
        outer = call(network, last, x).square().sum()
        return list(torch.autograd.grad(outer, [scale, *network.parameters()]))

    for one, other in zip(slopes(), slopes(recompute=[scale]), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=0)


def test_groups_of_an_optimizer_keep_their_numbers() -> None:
    network, x, y = problem()
    first, last = list(network.parameters())[:2], list(network.parameters())[2:]

    def grouped(parameters: Any) -> torch.optim.Optimizer:
        parameters = list(parameters)
        return torch.optim.Adam(
            [{"params": parameters[:2], "lr": 0.1}, {"params": parameters[2:], "betas": (0.5, 0.6)}]
        )

    optimizer = grouped([*first, *last])
    *_, after = gradient_steps(
        lambda w: F.mse_loss(call(network, w, x), y), weights_of(network), optimizer, STEPS
    )
    for ours, theirs in zip(after.values(), path_of_torch(grouped), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-13)
    strangers = {name: weight.detach() for name, weight in weights_of(network).items()}
    with pytest.raises(FewshotError, match=r"0\.weight is in none of the 2 groups.*weights_of"):
        next(gradient_steps(lambda w: w["0.weight"].sum(), strangers, optimizer, 1))


def test_first_order_takes_gradients_as_constants() -> None:
    start = torch.tensor([1.0, -2.0], requires_grad=True)
    for rule in (0.1, Adam(0.1), torch.optim.NAdam([start], 0.1)):
        *_, last = gradient_steps(
            lambda w: w["w"].pow(4).sum(), {"w": start}, rule, 2, first_order=True
        )
        (slope,) = torch.autograd.grad(last["w"].sum(), start)
        assert torch.equal(slope, torch.ones(2))


def test_what_cannot_be_a_rule_is_refused_in_one_line() -> None:
    weights = {"w": torch.ones(2)}
    with pytest.raises(FewshotError, match=r"^lr is -0\.1; set lr >= 0$"):
        SGD(-0.1)
    with pytest.raises(FewshotError, match=r"^betas is \(0\.9, -1\.0\); set betas >= 0$"):
        Adam(betas=(0.9, -1.0))
    with pytest.raises(FewshotError, match="steps is -1; set steps >= 0"):
        next(gradient_steps(lambda w: w["w"].sum(), weights, 0.1, -1))
    with pytest.raises(FewshotError, match="LBFGS has no argument `differentiable`"):
        next(gradient_steps(lambda w: w["w"].sum(), weights, torch.optim.LBFGS([torch.ones(1)]), 1))
    with pytest.raises(FewshotError, match="lr has no 'w'; it has v"):
        list(gradient_steps(lambda w: w["w"].sum(), weights, SGD({"v": 0.1}), 1))
