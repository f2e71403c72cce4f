"""Keeps non-finite meta-gradients from the weights, and does not wait to know where avoidable."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from fewshot.errors import FewshotError

TOO_MANY = 100  # meta-steps skipped in a row
_LEAVE_STEPS_OUT = (Adagrad, Adam, AdamW, SGD)  # those of torch that have a fused form


class Guard:
    """Takes outer steps, but none whose gradient is not finite.

    A program that asks whether a gradient is finite waits until an accelerator has computed it, and
    prepares nothing meanwhile. torch's fused optimizers can be told on the device to leave a step
    out. With them the answer is heard after the next step's gradient has been asked for, and what
    follows from it is one step late; the weights never are.

    Args:
        policy: `stop` the run, or `skip` the step and count it.
        explain: says of a meta-step and its batch what was not finite, and what to do.
    """

    def __init__(self, policy: Literal["stop", "skip"], explain: Callable[[int, Any], str]) -> None:
        self.policy, self.explain = policy, explain
        self.skipped, self._in_a_row = 0, 0
        self._asked: _Asked | None = None

    def step(self, take: Callable[[], None], optimizer: Optimizer, number: int, batch: Any) -> None:
        """Let `take` take meta-step `number` through `optimizer`, if its gradient is finite.

        Raises:
            FewshotError: it, or that of the step before, was not, and the run shall stop; or only
                such came for long.
        """
        finite = gradient_is_finite(optimizer)
        self.settle()
        if leaves_steps_out(optimizer):
            self._asked = _Asked.about(number, batch, finite)
            with left_out_unless(finite, optimizer):
                take()
        elif self._heard(bool(finite), number, batch):
            take()

    def settle(self) -> None:
        """Hear of the step before, where nobody has waited for it."""
        if (pending := self._asked) is not None:
            self._asked = None
            self._heard(pending.was_finite(), pending.number, pending.batch)

    def _heard(self, finite: bool, number: int, batch: Any) -> bool:
        self._in_a_row = 0 if finite else self._in_a_row + 1
        if not finite:
            if self.policy == "stop":
                raise FewshotError(self.explain(number, batch))
            if self._in_a_row == TOO_MANY:
                raise FewshotError(
                    f"the last {TOO_MANY} meta-steps were all skipped:"
                    f" {self.explain(number, batch)}"
                )
            self.skipped += 1
        return finite


def gradient_is_finite(optimizer: Optimizer) -> Tensor:
    """Whether the norm of all gradients is finite: bool () on their device, maybe pending."""
    gradients = [
        p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
    ]
    gradients = [grad.coalesce().values() if grad.is_sparse else grad for grad in gradients]
    return torch.isfinite(torch.nn.utils.get_total_norm(gradients))


def leaves_steps_out(optimizer: Optimizer) -> bool:
    """Whether `optimizer` can be told on the device to leave a step out: torch's fused ones can."""
    return type(optimizer) in _LEAVE_STEPS_OUT and all(
        group.get("fused") for group in optimizer.param_groups
    )


@contextmanager
def left_out_unless(finite: Tensor, optimizer: Optimizer) -> Iterator[None]:
    """Inside, a step of such an optimizer changes nothing, moments included, unless `finite`."""
    # The name under which torch's own gradient scaler says so.
    optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        # torch's scaler, where there is one, has removed its own
        vars(optimizer).pop("found_inf", None)


class _Asked(NamedTuple):
    """A step that was left out if its gradient was not finite.

    Whether it was is on its way here.
    """

    number: int
    batch: Any
    finite: Tensor
    arrival: torch.cuda.Event | None

    @classmethod
    def about(cls, number: int, batch: Any, finite: Tensor) -> "_Asked":
        """Ask about a step's `finite` () without waiting for the device that computes it."""
        if finite.device.type != "cuda":
            return cls(number, batch, finite, None)
        answer = finite.to("cpu", non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch has no types for it
        arrival.record()
        return cls(number, batch, answer, arrival)

    def was_finite(self) -> bool:
        """The answer; waits for what the device did up to that step, and for nothing after it."""
        if self.arrival is not None:
            self.arrival.synchronize()
        return bool(self.finite)
