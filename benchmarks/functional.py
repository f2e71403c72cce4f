"""`fewshot.functional` against `higher` and `torchopt`: the gradients of four bilevel problems.

    pip install -e '.[bench]'
    python benchmarks/functional.py [--repeats 15]

Each problem is one outer gradient, by the same network, data and rule, one backward an inner problem (vmap: one). Gradients are compared in
float64, times are CPU seconds of the process in float32, one after another in each round, every
second round in the opposite order; the medians over the rounds, the first of which does not count.
A peer has no call for the implicit gradient, so that there all three go back through 30 steps, and
ours takes the implicit one besides.
"""

import argparse
import gc
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import higher
import torch
import torch.nn.functional as F
import torchopt
from torch import Tensor, nn

from fewshot.functional import (
    SGD,
    Adam,
    Rule,
    call,
    gradient_steps,
    implicit,
    map_episodes,
    weights_of,
)

Slopes = Sequence[Tensor]


class Problem(NamedTuple):
    """A bilevel problem: B inner problems, and what the outer gradient is of.

    Args:
        network: what descends.
        data: per inner problem (support x, support y, query x, query y), each with a first axis B.
        inner: the inner loss of outputs and targets; it may read `outer`.
        rate: of the inner rule. momentum: of SGD; None means Adam. steps: of the inner loop.
        outer: tensors that get the gradient, besides the network's where `of_network`.
    """

    network: nn.Module
    data: tuple[Tensor, Tensor, Tensor, Tensor]
    inner: Callable[[Tensor, Tensor], Tensor]
    judge: Callable[[Tensor, Tensor], Tensor]
    rate: Any
    steps: int
    momentum: float | None = 0.0
    outer: tuple[Tensor, ...] = ()
    of_network: bool = True

    @property
    def wanted(self) -> list[Tensor]:
        """What the gradient is taken by."""
        return [*(self.network.parameters() if self.of_network else ()), *self.outer]


def conv(width: int, size: int) -> nn.Module:
    """Four convolutions, and a layer to five classes."""
    blocks: list[nn.Module] = []
    for i in range(4):
        blocks += [nn.Conv2d(width if i else 1, width, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks, nn.Flatten(), nn.Linear(width * (size // 16) ** 2, 5))


def perceptron(inputs: int, outputs: int) -> nn.Module:
    """Two hidden layers of 40."""
    return nn.Sequential(
        nn.Linear(inputs, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, outputs)
    )


def maml() -> Problem:
    """Five steps of a small Conv4 on 5-way 1-shot episodes, by Adam."""
    y, targets = (torch.arange(5).repeat_interleave(n).expand(4, -1) for n in (1, 15))
    data = torch.randn(4, 5, 1, 28, 28), y, torch.randn(4, 75, 1, 28, 28), targets
    return Problem(conv(16, 28), data, F.cross_entropy, F.cross_entropy, 1e-3, 5, momentum=None)


def penalty() -> Problem:
    """Thirty steps of a regression, whose loss an outer number scales."""
    scale = torch.tensor(0.5, requires_grad=True)
    x, y, query_x, query_y = (torch.randn(1, 30, n) for n in (20, 1, 20, 1))
    data = x, y, query_x, query_y

    def inner(outputs: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(outputs, y) + scale * outputs.square().mean()

    return Problem(
        nn.Linear(20, 1), data, inner, F.mse_loss, 0.05, 30, 0.9, (scale,), of_network=False
    )


def rates() -> Problem:
    """Three steps at a learned rate for each weight."""
    network = perceptron(1, 1)
    learned = {n: torch.full_like(p, 0.01).requires_grad_() for n, p in network.named_parameters()}
    data = tuple(torch.randn(4, 10, 1) for _ in range(4))
    return Problem(network, data, F.mse_loss, F.mse_loss, learned, 3, 0.0, tuple(learned.values()))  # type: ignore[arg-type]


def reweighting() -> Problem:
    """One step with a weight for each of 512 examples."""
    weigh = torch.full((512,), 1 / 512, requires_grad=True)
    data = (torch.randn(1, 512, 10), torch.randint(2, (1, 512)),
            torch.randn(1, 64, 10), torch.randint(2, (1, 64)))  # fmt: skip

    def inner(outputs: Tensor, y: Tensor) -> Tensor:
        return (weigh * F.cross_entropy(outputs, y, reduction="none")).sum()

    return Problem(
        perceptron(10, 2), data, inner, F.cross_entropy, 0.1, 1, 0.0, (weigh,), of_network=False
    )


PROBLEMS = {"MAML": maml, "implicit gradients": penalty, "rates": rates, "reweighting": reweighting}


def rule(p: Problem) -> Rule:
    """Ours of the problem."""
    return Adam(p.rate, eps=EPS) if p.momentum is None else SGD(p.rate, momentum=p.momentum)


EPS = 1e-30
"""`higher` adds eps elsewhere in Adam than torch; where it is nothing, both are the same."""


def ours(p: Problem, how: Any = "loop") -> Slopes:
    """The outer gradient by this library."""

    def query_loss(x: Tensor, y: Tensor, query_x: Tensor, query_y: Tensor) -> Tensor:
        *_, last = gradient_steps(
            lambda w: p.inner(call(p.network, w, x), y), weights_of(p.network), rule(p), p.steps
        )
        return p.judge(call(p.network, last, query_x), query_y)

    if how != "loop":
        return torch.autograd.grad(map_episodes(query_loss, how)(*p.data).mean(), p.wanted)
    total = [torch.zeros_like(tensor) for tensor in p.wanted]
    for parts in zip(*p.data, strict=True):
        loss = query_loss(*parts) / len(p.data[0])
        for sum_, slope in zip(total, torch.autograd.grad(loss, p.wanted), strict=True):
            sum_ += slope
    return total


def ours_implicit(p: Problem) -> Slopes:
    """The implicit gradient where the steps end: another number, where they have not converged."""
    x, y, query_x, query_y = (part[0] for part in p.data)

    def loss(w: dict[str, Tensor]) -> Tensor:
        return p.inner(call(p.network, w, x), y)

    *_, last = gradient_steps(loss, weights_of(p.network), rule(p), p.steps, first_order=True)
    weights = implicit(loss, last, cg_steps=10)
    return torch.autograd.grad(p.judge(call(p.network, weights, query_x), query_y), p.wanted)


def with_higher(p: Problem) -> Slopes:
    """The same by `higher`, as its examples have it: one backward an inner problem."""
    parameters = list(p.network.parameters())
    override = None
    if p.momentum is None:
        optimizer: torch.optim.Optimizer = torch.optim.Adam(parameters, p.rate, eps=EPS)
    elif isinstance(p.rate, dict):  # a group for each weight, as its documentation says
        optimizer = torch.optim.SGD([{"params": [q]} for q in parameters], 0.01)
        override = {"lr": list(p.rate.values())}
    else:
        optimizer = torch.optim.SGD(parameters, p.rate, p.momentum)
    total = [torch.zeros_like(tensor) for tensor in p.wanted]
    for x, y, query_x, query_y in zip(*p.data, strict=True):
        with higher.innerloop_ctx(
            p.network, optimizer, copy_initial_weights=False, override=override
        ) as (fast, steps):
            for _ in range(p.steps):
                steps.step(p.inner(fast(x), y))
            loss = p.judge(fast(query_x), query_y) / len(p.data[0])
            for sum_, slope in zip(total, torch.autograd.grad(loss, p.wanted), strict=True):
                sum_ += slope
    return total


def with_torchopt(p: Problem) -> Slopes | None:
    """The same by `torchopt`, as its MAML example has it; it knows no rate for each weight."""
    if isinstance(p.rate, dict):
        return None
    inner: Any = (
        torchopt.MetaAdam(p.network, lr=p.rate, eps=EPS)
        if p.momentum is None
        else torchopt.MetaSGD(p.network, lr=p.rate, momentum=p.momentum)
    )
    wanted = p.wanted
    weights = torchopt.extract_state_dict(p.network, by="reference", detach_buffers=True)
    state = torchopt.extract_state_dict(inner, by="reference")
    total = [torch.zeros_like(tensor) for tensor in wanted]
    for x, y, query_x, query_y in zip(*p.data, strict=True):
        for _ in range(p.steps):
            inner.step(p.inner(p.network(x), y))
        loss = p.judge(p.network(query_x), query_y) / len(p.data[0])
        for sum_, slope in zip(total, torch.autograd.grad(loss, wanted), strict=True):
            sum_ += slope
        torchopt.recover_state_dict(p.network, weights)
        torchopt.recover_state_dict(inner, state)
    return total


CONTESTANTS: dict[str, Callable[[Problem], Slopes | None]] = {
    "ours": ours,
    "ours by vmap": lambda p: ours(p, "vmap"),
    "higher": with_higher,
    "torchopt": with_torchopt,
}


def made(name: str, dtype: torch.dtype) -> Problem:
    """The problem in a precision."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    torch.manual_seed(0)
    try:
        return PROBLEMS[name]()
    finally:
        torch.set_default_dtype(before)


def largest_difference(name: str, contestant: str) -> float | None:
    """Between a contestant's gradient and ours, of the largest value there, in float64."""
    p = made(name, torch.float64)
    found, expected = CONTESTANTS[contestant](p), ours(p)
    if found is None:
        return None
    largest = max(slope.abs().max().item() for slope in expected)
    return max((a - b).abs().max().item() for a, b in zip(found, expected, strict=True)) / largest


def times(name: str, repeats: int) -> dict[str, float]:
    """Median CPU seconds of one outer gradient by each contestant."""
    p = made(name, torch.float32)
    runs = dict(CONTESTANTS)
    if name == "implicit gradients":
        runs["ours, implicit"] = ours_implicit
    seconds: dict[str, list[float]] = {who: [] for who in runs}
    gc.collect()
    for number in range(repeats + 1):
        for who in list(runs)[:: 1 if number % 2 else -1]:
            start = time.process_time()
            if runs[who](p) is not None and number:
                seconds[who].append(time.process_time() - start)
    return {who: statistics.median(values) for who, values in seconds.items() if values}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print(f"{'CPU ms (relative difference in float64)':42}")
    for name in PROBLEMS:
        for who, value in times(name, repeats).items():
            off = None if who == "ours, implicit" else largest_difference(name, who)
            note = "" if off is None else f"   {off:.0e}"
            print(f"  {name:20}{who:18}{1e3 * value:9.2f}{note}")


if __name__ == "__main__":
    main()
