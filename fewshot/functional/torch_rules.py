"""The rule of any optimizer of torch, as a pure function of weights, gradients and state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fewshot.engine.inner_loop import Weights
from fewshot.errors import FewshotError
from fewshot.functional import rules
from fewshot.functional.modes import detached_where_off
from fewshot.functional.rules import Rule, State

WRITTEN: dict[type[Optimizer], tuple[type[Rule], tuple[str, ...]]] = {
    torch.optim.SGD: (rules.SGD, ("momentum", "dampening", "weight_decay", "nesterov")),
    torch.optim.Adam: (rules.Adam, ("betas", "eps", "weight_decay", "amsgrad")),
    torch.optim.AdamW: (rules.AdamW, ("betas", "eps", "weight_decay", "amsgrad")),
    torch.optim.RMSprop: (
        rules.RMSprop,
        ("alpha", "eps", "weight_decay", "momentum", "centered"),
    ),
}
"""The optimizers whose equations stand in `rules`, with their options."""
HOW = {"foreach": None, "fused": None, "capturable": False}
"""Options that say how an optimizer runs, not what it does."""


@dataclass(frozen=True)
class TorchRule(Rule):
    """The rule of an optimizer of torch that has no equations here, by its own code.

    torch's optimizers with an argument `differentiable` have it: Adadelta, Adagrad, Adamax, ASGD,
    NAdam, RAdam, Rprop, and optimizers of others. Their roots have no derivative at 0: a gradient
    of exactly 0 may become a meta-gradient that is no number. Not under ``torch.vmap``.

    Args:
        lr: the learning rate.
        optimizer: the class.
        options: its other arguments, by name.

    Raises:
        FewshotError: the class cannot be differentiated through.
    """

    optimizer: type[Optimizer] = torch.optim.NAdam
    options: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            self._made([torch.zeros(1)], 0.0)
        except TypeError as error:
            raise FewshotError(
                f"{self.optimizer.__name__} has no argument `differentiable` ({error}); take SGD,"
                " Adam, AdamW, RMSprop, or one of torch's that has it"
            ) from error

    def update(
        self, step: int, weights: Weights, gradients: Weights, state: State
    ) -> tuple[Weights, State]:
        """One step, on copies that torch changes in place."""
        after: Weights = {}
        remembered: State = {}
        for name, weight in weights.items():
            copy = weight.clone()
            copy.grad = gradients[name]
            optimizer = self._made([copy], self.rate(step, name))
            for slot, of in state.items():
                optimizer.state[copy][slot] = of[name].clone()
            optimizer.step()
            after[name] = copy
            for slot, value in optimizer.state[copy].items():
                remembered.setdefault(slot, {})[name] = _as_tensor(value, self.optimizer)
        return detached_where_off(after), {
            slot: detached_where_off(of) for slot, of in remembered.items()
        }

    def _made(self, weights: Sequence[Tensor], rate: Any) -> Any:
        make: Any = self.optimizer
        return make(weights, lr=rate, differentiable=True, **(self.options or {}))


@dataclass(frozen=True)
class GroupsRule(Rule):
    """Other rules for other weights.

    Args:
        lr: is those of the rules.
        of: the rule of each weight, by its name.
    """

    lr: rules.Rate = 0.0
    of: Mapping[str, Rule] | None = None

    def start(self, weights: Weights) -> State:
        """What the rules remember, each of its own weights."""
        return _merged(rule.start(some) for rule, some in self._parts(weights))

    def update(
        self, step: int, weights: Weights, gradients: Weights, state: State
    ) -> tuple[Weights, State]:
        """One step of each."""
        after: Weights = {}
        states = []
        for rule, some in self._parts(weights):
            own = {
                slot: {name: value for name, value in of.items() if name in some}
                for slot, of in state.items()
            }
            slopes = {name: gradients[name] for name in some}
            moved, new = rule.update(step, some, slopes, {s: of for s, of in own.items() if of})
            after |= moved
            states.append(new)
        return {name: after[name] for name in weights}, _merged(states)

    def _parts(self, weights: Weights) -> list[tuple[Rule, Weights]]:
        assert self.of is not None
        rules = {id(rule): rule for rule in self.of.values()}
        return [
            (rule, {name: w for name, w in weights.items() if self.of[name] is rule})
            for rule in rules.values()
        ]


def rule_of(optimizer: Optimizer, weights: Weights) -> Rule:
    """The rule of an optimizer with its numbers; its state and schedulers are left out.

    Args:
        optimizer: of the module's parameters; with several groups, `weights` must be them.
        weights: that the rule is for.

    Raises:
        FewshotError: it cannot be differentiated through, or does not know a weight.
    """
    groups = optimizer.param_groups
    made = [_rule_of_group(type(optimizer), group) for group in groups]
    if len(groups) == 1:
        return made[0]
    number = {id(p): i for i, group in enumerate(groups) for p in group["params"]}
    unknown = [name for name, weight in weights.items() if id(weight) not in number]
    if unknown:
        raise FewshotError(
            f"{unknown[0]} is in none of the {len(groups)} groups of the optimizer, so that its"
            " numbers are unknown; start from weights_of(module), or give an optimizer of one group"
        )
    return GroupsRule(of={name: made[number[id(weight)]] for name, weight in weights.items()})


def _rule_of_group(optimizer: type[Optimizer], group: Mapping[str, Any]) -> Rule:
    own = (*HOW, "params", "lr", "initial_lr", "differentiable", "decoupled_weight_decay")
    options = {name: value for name, value in group.items() if name not in own}
    rule, known = WRITTEN.get(optimizer, (None, ()))
    decoupled = group.get("decoupled_weight_decay", False)
    if rule is not None and not group.get("maximize") and decoupled == (rule is rules.AdamW):
        return rule(group["lr"], **{name: options[name] for name in known})
    if decoupled and optimizer is not torch.optim.AdamW:  # of Adam, NAdam, RAdam
        options["decoupled_weight_decay"] = True
    return TorchRule(group["lr"], optimizer, options)


def _merged(states: Any) -> State:
    merged: State = {}
    for state in states:
        for slot, of in state.items():
            merged.setdefault(slot, {}).update(of)
    return merged


def _as_tensor(value: Any, optimizer: type[Optimizer]) -> Tensor:
    if isinstance(value, Tensor):
        return value
    raise FewshotError(
        f"{optimizer.__name__} remembers a {type(value).__name__}, no tensor; take SGD, Adam, AdamW"
        " or RMSprop"
    )
