"""Episodes and a small network, written out, for tests of what mixes or perturbs examples."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fewshot.episodes.types import Episode, Examples, MetaBatch

WAY, SEEN, NUMBER = 3, 6, 9
TASK = {"kind": "classification", "way": WAY}
FUNCTIONS = {"kind": "regression", "targets": 1}


def batch(size: int = 3) -> MetaBatch:
    torch.manual_seed(1)
    labels = [torch.arange(WAY).repeat(n // WAY).expand(size, -1) for n in (SEEN, NUMBER)]
    parts = [Examples(torch.randn(*y.shape, 4), y) for y in labels]
    return MetaBatch([Episode(*parts)], torch.arange(size) + 20)


def functions(size: int = 3) -> MetaBatch:
    torch.manual_seed(1)
    x = [torch.randn(size, n, 4) for n in (SEEN, NUMBER)]
    return MetaBatch([Episode(*(Examples(one, one.sum(2, True).sin()) for one in x))],
                     torch.arange(size) + 20)  # fmt: skip


def network(w: Sequence[Tensor], x: Tensor) -> Tensor:
    hidden = torch.relu(F.linear(x, w[0], w[1]))
    return F.linear(torch.relu(F.linear(hidden, w[2], w[3])), w[4], w[5])


def of_mixture(
    w: Sequence[Tensor], query: Tensor, other: Tensor, share: float, place: int
) -> Tensor:
    """Outputs, with both mixed at the input or at what the second layer reads."""
    if place == 0:
        return network(w, share * query + (1 - share) * other)
    one, two = (torch.relu(F.linear(x, w[0], w[1])) for x in (query, other))
    hidden = share * one + (1 - share) * two
    return F.linear(torch.relu(F.linear(hidden, w[2], w[3])), w[4], w[5])


def assert_same_gradients(
    found: Tensor, wanted: Tensor, parameters: Sequence[nn.Parameter]
) -> None:
    """Losses of episodes and what they give the parameters, against those written out."""
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(found.sum(), parameters),
        torch.autograd.grad(wanted.sum(), parameters),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
