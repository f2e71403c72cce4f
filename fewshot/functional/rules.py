"""Update rules of torch's optimizers as pure functions, so that they are differentiated through.

Each is its torch version, equation by equation. Their numbers may be tensors with a gradient, which
is how a learning rate or a momentum is learned. What a rule remembers is a `State`: by the name of
the average, then by that of the weight.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TypeAlias

import torch
from torch import Tensor

from fewshot.engine.inner_loop import Weights
from fewshot.errors import FewshotError

Number: TypeAlias = float | Tensor
Rate: TypeAlias = Number | Mapping[str, Number] | Callable[[int, str], Number]
"""A learning rate: one number for all; one for each weight, by its name; or a function of the step
(0, 1, ...) and of the name. A tensor broadcasts against its weight."""
State: TypeAlias = dict[str, Weights]


@dataclass(frozen=True)
class Rule(ABC):
    """What gradients do to weights.

    Raises:
        FewshotError: a number is negative.
    """

    lr: Rate

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, float | int) and number < 0:
                    raise FewshotError(f"{field.name} is {value}; set {field.name} >= 0")

    def rate(self, step: int, name: str) -> Number:
        """The learning rate of a weight at a step.

        Raises:
            FewshotError: there is none for the weight.
        """
        if callable(self.lr) and not isinstance(self.lr, Tensor):
            return self.lr(step, name)
        if isinstance(self.lr, Mapping):
            if name not in self.lr:
                raise FewshotError(f"lr has no {name!r}; it has {', '.join(self.lr)}")
            return self.lr[name]
        return self.lr

    def start(self, weights: Weights) -> State:
        """What there is to remember before the first step."""
        return {}

    @abstractmethod
    def update(
        self, step: int, weights: Weights, gradients: Weights, state: State
    ) -> tuple[Weights, State]:
        """The weights and the state after step 0, 1, ...; nothing is changed in place."""


@dataclass(frozen=True)
class SGD(Rule):
    """``torch.optim.SGD``.

    ```python
    >>> rate = torch.tensor(0.25, requires_grad=True)  # a rate that is learned
    >>> before, gradients = {"w": torch.tensor(1.0)}, {"w": torch.tensor(2.0)}
    >>> after, _ = SGD(rate).update(0, before, gradients, {})
    >>> after["w"].item(), torch.autograd.grad(after["w"], rate)
    (0.5, (tensor(-2.),))
    ```

    Args:
        lr: the learning rate.
        momentum: of the sum of gradients.
        dampening: share of a gradient that does not get into that sum, from the second on.
        weight_decay: times the weight, added to the gradient.
        nesterov: look ahead by the momentum.
    """

    momentum: Number = 0.0
    dampening: Number = 0.0
    weight_decay: Number = 0.0
    nesterov: bool = False

    def update(
        self, step: int, weights: Weights, gradients: Weights, state: State
    ) -> tuple[Weights, State]:
        """One step of descent."""
        slopes = _decayed(gradients, weights, self.weight_decay)
        if _is_zero(self.momentum):
            return _moved(self, step, weights, slopes), state
        sums = dict(slopes)
        if step:
            sums = {
                name: _plus(self.momentum * state["momentum"][name], slope, 1 - self.dampening)
                for name, slope in slopes.items()
            }
        moves = sums
        if self.nesterov:
            moves = {name: _plus(slopes[name], sums[name], self.momentum) for name in sums}
        return _moved(self, step, weights, moves), {"momentum": sums}


@dataclass(frozen=True)
class Adam(Rule):
    """``torch.optim.Adam``.

    Args:
        lr: the learning rate.
        betas: of the averages of the gradient and of its square.
        eps: added to the root of the latter.
        weight_decay: times the weight, added to the gradient.
        amsgrad: divide by the largest average that there was.
    """

    lr: Rate = 1e-3
    betas: tuple[Number, Number] = (0.9, 0.999)
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    amsgrad: bool = False

    def start(self, weights: Weights) -> State:
        """Averages of 0."""
        names = ("mean", "square", "largest") if self.amsgrad else ("mean", "square")
        return {name: _zeros(weights) for name in names}

    def update(
        self, step: int, weights: Weights, gradients: Weights, state: State
    ) -> tuple[Weights, State]:
        """One step of Adam."""
        return self._step(step, weights, _decayed(gradients, weights, self.weight_decay), state)

    def _step(
        self, step: int, weights: Weights, slopes: Weights, state: State
    ) -> tuple[Weights, State]:
        first, second = self.betas
        mean = _averaged(state["mean"], slopes, first)
        square = {
            name: _plus(second * state["square"][name], slope * slope, 1 - second)
            for name, slope in slopes.items()
        }
        after, largest = {"mean": mean, "square": square}, square
        if self.amsgrad:
            largest = {n: torch.maximum(state["largest"][n], square[n]) for n in square}
            after["largest"] = largest
        share, root_share = 1 - first ** (step + 1), (1 - second ** (step + 1)) ** 0.5
        # m / share / (root / root_share + eps)
        moves = {
            name: mean[name] / (root(largest[name]) * (share / root_share) + share * self.eps)
            for name in slopes
        }
        return _moved(self, step, weights, moves), after


@dataclass(frozen=True)
class AdamW(Adam):
    """``torch.optim.AdamW``: the weights shrink by themselves.

    Args:
        lr: the learning rate.
        betas: of the averages of the gradient and of its square.
        eps: added to the root of the latter.
        weight_decay: times the learning rate, the share that a weight loses each step.
        amsgrad: divide by the largest average that there was.
    """

    weight_decay: Number = 1e-2

    def update(
        self, step: int, weights: Weights, gradients: Weights, state: State
    ) -> tuple[Weights, State]:
        """One step of AdamW."""
        if not _is_zero(self.weight_decay):
            weights = {
                name: weight * (1 - self.rate(step, name) * self.weight_decay)
                for name, weight in weights.items()
            }
        return self._step(step, weights, gradients, state)


@dataclass(frozen=True)
class RMSprop(Rule):
    """``torch.optim.RMSprop``.

    Args:
        lr: the learning rate.
        alpha: of the average of the gradient's square.
        eps: added to its root.
        weight_decay: times the weight, added to the gradient.
        momentum: of the sum of steps.
        centered: divide by the deviation, not by the root of the square's average.
    """

    lr: Rate = 1e-2
    alpha: Number = 0.99
    eps: Number = 1e-8
    weight_decay: Number = 0.0
    momentum: Number = 0.0
    centered: bool = False

    def start(self, weights: Weights) -> State:
        """Averages of 0."""
        names = ["square"]
        names += ["mean"] if self.centered else []
        names += [] if _is_zero(self.momentum) else ["momentum"]
        return {name: _zeros(weights) for name in names}

    def update(
        self, step: int, weights: Weights, gradients: Weights, state: State
    ) -> tuple[Weights, State]:
        """One step of RMSprop."""
        slopes = _decayed(gradients, weights, self.weight_decay)
        square = {
            name: _plus(self.alpha * state["square"][name], slope * slope, 1 - self.alpha)
            for name, slope in slopes.items()
        }
        after, spread = {"square": square}, square
        if self.centered:
            mean = after["mean"] = _averaged(state["mean"], slopes, self.alpha)
            spread = {name: square[name] - mean[name] * mean[name] for name in square}
        moves = {name: slope / (root(spread[name]) + self.eps) for name, slope in slopes.items()}
        if not _is_zero(self.momentum):
            moves = {
                name: _plus(move, state["momentum"][name], self.momentum)
                for name, move in moves.items()
            }
            after["momentum"] = moves
        return _moved(self, step, weights, moves), after


def root(squares: Tensor) -> Tensor:
    """The square root, with a derivative of 0 at 0, where a gradient has always been 0.

    Its own there is infinite, and times 0 no number: one dead unit would spoil all.
    """
    positive = squares > 0
    return torch.where(positive, torch.where(positive, squares, 1.0).sqrt(), 0.0)


def _moved(rule: Rule, step: int, weights: Weights, moves: Weights) -> Weights:
    """The weights, each its learning rate times its move further down."""
    return {name: _plus(w, moves[name], -rule.rate(step, name)) for name, w in weights.items()}


def _decayed(gradients: Weights, weights: Weights, decay: Number) -> Weights:
    if _is_zero(decay):
        return gradients
    return {name: _plus(slope, weights[name], decay) for name, slope in gradients.items()}


def _averaged(means: Weights, values: Weights, keep: Number) -> Weights:
    return {name: torch.lerp(mean, values[name], 1 - keep) for name, mean in means.items()}


def _plus(one: Tensor, other: Tensor, factor: Number) -> Tensor:
    """``one + factor * other``, in one operation where it can be."""
    if isinstance(factor, Tensor):
        return one + factor * other
    return torch.add(one, other, alpha=factor)


def _zeros(weights: Weights) -> Weights:
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}


def _is_zero(number: Number) -> bool:
    return not isinstance(number, Tensor) and number == 0
