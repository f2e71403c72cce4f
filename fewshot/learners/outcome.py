"""What comes of running episodes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Outcome(NamedTuple):
    """What came of b episodes: losses (b,), metrics (b,), query outputs (b, N*Q, output_size).

    Metrics by name; `state` (b, ...) by name is what a learner's training goes on with besides the
    weights.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    outputs: Tensor
    # a tree of tensors like the others; nobody writes into it
    state: dict[str, Tensor] = {}  # noqa: RUF012


def joined_outcomes(outcomes: Sequence[Outcome]) -> Outcome:
    """The outcome of several chunks, without their `state`."""
    names = outcomes[0].metrics
    return Outcome(
        torch.cat([outcome.loss for outcome in outcomes]),
        {name: torch.cat([outcome.metrics[name] for outcome in outcomes]) for name in names},
        torch.cat([outcome.outputs for outcome in outcomes]),
    )
