"""Whether an outer optimizer and its scheduler do what they are asked, told before training."""

import functools
import inspect
import math
import warnings
from typing import Any

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, ReduceLROnPlateau

from fewshot.errors import FewshotError

MOST = 10_000
"""Steps that are tried at most; a tenth of a second."""
PERIODS = {"step_size", "T_max", "T_0", "T_mult", "total_steps", "step_size_up", "step_size_down"}
"""Arguments of schedulers that count steps, and begin at one."""


def check_optimization(
    optimizer: OptimizerCallable, lr_scheduler: LRSchedulerCallable | None, steps: int | None
) -> None:
    """Make both for a weight that nobody needs, and take a run's steps with the scheduler.

    What is not of torch is not judged: it may ask for more than such a weight.

    Args:
        optimizer: makes the optimizer from the parameters.
        lr_scheduler: makes the scheduler from the optimizer; None: there is none.
        steps: meta-steps of the run; None: unknown.

    Raises:
        FewshotError: one cannot be made, the scheduler ends before the run does, or a learning rate
            is none.
    """
    if not _is_torchs(optimizer):
        return
    made = _made("optimizer", optimizer, [torch.nn.Parameter(torch.zeros(1))])
    _check_rates("optimizer", optimizer, made, 0)
    if lr_scheduler is None or not _is_torchs(lr_scheduler):
        return
    _check_periods(lr_scheduler)
    scheduler = _made("lr_scheduler", lr_scheduler, made)
    if isinstance(scheduler, ReduceLROnPlateau):
        return  # it asks what nobody knows yet
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no step of the optimizer came before
        for step in range(1, min(2 if steps is None else steps, MOST) + 1):
            try:
                scheduler.step()
            except Exception as error:
                raise FewshotError(
                    f"lr_scheduler {_shown(lr_scheduler)} fails at meta-step {step}:"
                    f" {_first_line(error)}; correct its arguments"
                ) from error
            _check_rates("lr_scheduler", lr_scheduler, made, step)


def tell_of_a_rise(scheduler: LRScheduler, steps: float) -> None:
    """Warn of a cosine that ends before a run of `steps` meta-steps: the rate rises again then.

    Of a run without an end nobody can say which period is right.
    """
    if type(scheduler) is CosineAnnealingLR and scheduler.T_max < steps < math.inf:
        rank_zero_warn(
            f"CosineAnnealingLR falls until meta-step {scheduler.T_max} of {steps:.0f}, then rises;"
            f" to fall throughout, set lr_scheduler.T_max: {steps:.0f}"
        )


def _class_of(make: Any) -> type | None:
    """The class that `make` makes an object of, if it is one, or such a one with arguments."""
    parts = (make.func, *make.args) if isinstance(make, functools.partial) else (make,)
    return next((part for part in parts if isinstance(part, type)), None)


def _is_torchs(make: Any) -> bool:
    cls = _class_of(make)
    # lightning's ReduceLROnPlateau is torch's
    return (
        cls is not None
        and issubclass(cls, Optimizer | LRScheduler)
        and any(cls.__module__.startswith(package) for package in ("torch.", "lightning."))
    )


def _made(name: str, make: Any, argument: Any) -> Any:
    try:
        return make(argument)
    except Exception as error:
        raise FewshotError(
            f"{name} {_shown(make)} cannot be made: {_first_line(error)}; correct its arguments"
        ) from error


def _check_rates(name: str, make: Any, optimizer: Optimizer, step: int) -> None:
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        if not math.isfinite(rate) or rate < 0:
            when = f" at meta-step {step}" if step else ""
            raise FewshotError(
                f"{name} {_shown(make)} makes the learning rate {rate:g}{when}; correct its"
                " arguments"
            )


def _check_periods(make: Any) -> None:
    """Refuse a period that is not positive: torch takes it, and it means nothing."""
    given = make.keywords if isinstance(make, functools.partial) else {}
    for name in PERIODS & given.keys():
        if given[name] is not None and given[name] < 1:
            raise FewshotError(f"lr_scheduler.{name} is {given[name]}; set {name} >= 1")


def _shown(make: Any) -> str:
    """What makes it, and with which arguments that are not its defaults."""
    cls = _class_of(make)
    assert cls is not None
    parameters = inspect.signature(cls).parameters
    given = make.keywords if isinstance(make, functools.partial) else {}
    told = (
        f"{name}={value!r}"
        for name, value in given.items()
        if name not in parameters or parameters[name].default != value
    )
    return f"{cls.__name__}({', '.join(told)})"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")
